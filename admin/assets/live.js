// Replaces the content of the page every 5 seconds, and says so if the service does not answer.
// Without JavaScript the page is complete, and stays as it was when it was loaded.
'use strict'

const interval = 5000, timeout = 10000
let lastContact = new Date()

// key finds an element again in the new content, so that the keyboard focus stays where it is.
const key = e => e && e.id ? '#' + CSS.escape(e.id) : e && e.getAttribute('href') ? `main a[href="${CSS.escape(e.getAttribute('href'))}"]` : null

function replace(text) {
  const next = new DOMParser().parseFromString(text, 'text/html')
  const focus = key(document.activeElement)
  const open = [...document.querySelectorAll('details[open][id]')].map(d => d.id)
  for (const id of ['status', 'content']) {
    const from = next.getElementById(id), to = document.getElementById(id)
    if (!from || !to) throw new Error('not a page of the service')
    // A live region is announced only if its text changes.
    if (to.innerHTML !== from.innerHTML) to.replaceChildren(...from.childNodes)
  }
  for (const id of open) document.getElementById(id)?.setAttribute('open', '')
  if (focus) document.querySelector(focus)?.focus({preventScroll: true})
}

async function update() {
  const contact = document.getElementById('contact')
  try {
    const answer = await fetch(location.href, {signal: AbortSignal.timeout(timeout), headers: {Accept: 'text/html'}})
    if (!answer.ok) throw new Error(String(answer.status))
    replace(await answer.text())
    lastContact = new Date()
    contact.hidden = true
  } catch {
    contact.textContent = 'No contact with the service since ' + lastContact.toLocaleTimeString() + '. What is shown is as it was then.'
    contact.hidden = false
  }
}

async function run() {
  // A selection would be lost.
  if (!document.hidden && getSelection().isCollapsed) await update()
  setTimeout(run, interval)
}
document.addEventListener('visibilitychange', () => { if (!document.hidden) update() })
setTimeout(run, interval)
