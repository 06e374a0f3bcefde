// An application of a creditors agent, with stompjs (npm install @stomp/stompjs): it configures
// an account, and processes what comes in.
//
//   node application.mjs STATE-FOLDER 12.34.ab.cd.00.00.00.01 < configure-account.json
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { Client } from '@stomp/stompjs';

const [state, debtor] = process.argv.slice(2);
const body = readFileSync(0, 'utf8');
const processed = new Set(); // in earnest: in the database, in the transaction that processes the message
let sent = false;

// stompjs is made for browsers, and speaks STOMP over a WebSocket. This is as much of one as it needs, over TCP.
class Socket {
  constructor(port, host) {
    this.readyState = 0;
    this.url = `${host}:${port}`;
    this.socket = connect(Number(port), host, () => { this.readyState = 1; this.onopen?.(); });
    this.socket.on('data', (data) => this.onmessage?.({ data: new Uint8Array(data).buffer }));
    this.socket.on('error', (err) => this.onerror?.(err));
    this.socket.on('close', () => { this.readyState = 3; this.onclose?.({ code: 1000, reason: '' }); });
  }
  send(data) { this.socket.write(data); }
  close() { this.readyState = 2; this.socket.end(); }
}

const client = new Client({
  webSocketFactory: () => {
    const [host, port] = JSON.parse(readFileSync(join(state, 'door.json'), 'utf8')).tcp.split(':');
    return new Socket(port, host);
  },
  // The passcode is read anew for each connection, since each service makes a new one.
  beforeConnect: (c) => { c.connectHeaders = { login: 'app', passcode: readFileSync(join(state, 'passcode'), 'utf8').trim() }; },
  reconnectDelay: 1000,
  heartbeatIncoming: 10000,
  heartbeatOutgoing: 10000,
  onConnect: () => {
    if (sent) return receive();
    // The message is on disk when the receipt comes. Without one, it is sent again.
    client.watchForReceipt('configured', () => { sent = true; console.log('sent'); receive(); });
    client.publish({
      destination: `/exchange/creditors_out/${debtor}`, body,
      headers: { type: 'ConfigureAccount', 'content-type': 'application/json', receipt: 'configured' },
    });
  },
  onStompError: (frame) => console.error(frame.headers.message),
});
// receive processes and acknowledges messages, until one of type RejectedConfig.
function receive() {
  client.subscribe('/queue/creditors_in', (message) => {
    const { type, 'message-id': id } = message.headers;
    if (!processed.has(id)) {
      console.log(type, message.body);
      processed.add(id);
    }
    message.ack(); // it comes again otherwise
    if (type === 'RejectedConfig') client.deactivate();
  }, { ack: 'client-individual', 'prefetch-count': '100' });
}

client.activate();
