// Replaces the content of the page every 5 seconds, and says so if the service does not answer.
// Without JavaScript the page is complete, and stays as it was when it was loaded.
//
// The pages with messages need a token. It is kept in sessionStorage, which belongs to this tab and
// to the port, and is sent in a header with requests for such pages only. They do not update
// themselves.
'use strict'

const interval = 5000, timeout = 10000, messagesTimeout = 30000
let lastContact = new Date()

// key finds an element again in the new content, so that the keyboard focus stays where it is.
const key = e => e && e.id ? '#' + CSS.escape(e.id) : e && e.getAttribute('href') ? `main a[href="${CSS.escape(e.getAttribute('href'))}"]` : null

const still = () => document.getElementById('content').hasAttribute('data-still')

function parse(text) {
  const next = new DOMParser().parseFromString(text, 'text/html')
  if (!next.getElementById('content')) throw new Error('not a page of the service')
  return next
}

function replace(next, ids) {
  const focus = key(document.activeElement)
  const open = [...document.querySelectorAll('details[open][id]')].map(d => d.id)
  for (const id of ids) {
    const from = next.getElementById(id), to = document.getElementById(id)
    // A live region is announced only if its text changes.
    if (to.innerHTML !== from.innerHTML) to.replaceChildren(...from.childNodes)
  }
  for (const id of open) document.getElementById(id)?.setAttribute('open', '')
  if (focus) document.querySelector(focus)?.focus({preventScroll: true})
}

// noContact shows since when the service does not answer; without an error, that it does.
function noContact(error) {
  const contact = document.getElementById('contact')
  if (!error) lastContact = new Date()
  else contact.textContent = 'No contact with the service since ' + lastContact.toLocaleTimeString() + '. What is shown is as it was then.'
  contact.hidden = !error
}

async function update() {
  const quiet = still()
  try {
    const answer = await fetch(quiet ? '/' : location.href, {signal: AbortSignal.timeout(timeout), headers: {Accept: 'text/html'}})
    if (!answer.ok) throw new Error(String(answer.status))
    replace(parse(await answer.text()), quiet ? ['status'] : ['status', 'content'])
    noContact()
  } catch (error) {
    noContact(error)
  }
}

// load requests the page with the token, and shows the response. form has the fields of a form, if it is one.
async function load(form) {
  const options = {signal: AbortSignal.timeout(messagesTimeout), headers: {Accept: 'text/html', Authorization: 'Bearer ' + sessionStorage.getItem('token')}}
  if (form) Object.assign(options, {method: 'POST', body: new URLSearchParams(form)})
  for (const button of document.querySelectorAll('main button')) button.disabled = true
  try {
    const answer = await fetch(location.pathname, options)
    const next = parse(await answer.text())
    if (answer.status === 401) sessionStorage.removeItem('token')
    document.title = next.title
    replace(next, ['status', 'content'])
    const result = document.getElementById('result') || document.getElementById('content')
    result.focus()
    result.scrollIntoView({block: 'nearest'})
    noContact()
  } catch (error) {
    for (const button of document.querySelectorAll('main button')) button.disabled = false
    noContact(error)
  }
}

document.addEventListener('submit', event => {
  event.preventDefault()
  if (event.target.id === 'unlock') {
    sessionStorage.setItem('token', document.getElementById('token').value.trim())
    load()
  } else {
    load(new FormData(event.target, event.submitter))
  }
})
document.addEventListener('click', event => {
  if (event.target.id !== 'lock') return
  sessionStorage.removeItem('token')
  location.reload()
})

async function run() {
  // A selection would be lost.
  if (!document.hidden && getSelection().isCollapsed) await update()
  setTimeout(run, interval)
}
document.addEventListener('visibilitychange', () => { if (!document.hidden) update() })

// "peerlink dashboard" prints a link with the token behind #, which no browser sends.
function takeToken() {
  const given = location.hash.match(/^#token=([!-~]+)$/)
  if (!given) return
  sessionStorage.setItem('token', given[1])
  history.replaceState(null, '', location.pathname)
}
takeToken()
addEventListener('hashchange', takeToken)
if (still() && sessionStorage.getItem('token')) load()
setTimeout(run, interval)
