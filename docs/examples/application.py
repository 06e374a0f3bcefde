# An application of a creditors agent, with stomp.py: it configures an account, and
# processes what comes in.
#
#   python3 application.py STATE-FOLDER 12.34.ab.cd.00.00.00.01 < configure-account.json
import json
import os
import queue
import sys
import time

import stomp

state, debtor = sys.argv[1:]
body = sys.stdin.read()
processed = set()  # in earnest: in the database, in the transaction that processes the message
sent = False


class Listener(stomp.ConnectionListener):
    """Puts what happens into a queue: the listener's thread must not be kept busy."""

    def __init__(self):
        self.events = queue.Queue()

    def on_receipt(self, frame):
        self.events.put(("receipt", frame))

    def on_message(self, frame):
        self.events.put(("message", frame))

    def on_error(self, frame):
        self.events.put(("error", frame))

    def on_disconnected(self):
        self.events.put(("disconnected", None))

    def next(self, expected):
        event, frame = self.events.get()
        if event != expected:
            raise ConnectionError(frame.body if frame else "the connection has ended")
        return frame


def connect(listener):
    """Connects. The passcode is read anew each time, since each service makes a new one."""
    with open(os.path.join(state, "passcode")) as f:
        passcode = f.read().strip()
    with open(os.path.join(state, "door.json")) as f:
        host, port = json.load(f)["tcp"].rsplit(":", 1)
    connection = stomp.Connection12([(host, int(port))], heartbeats=(10000, 10000))
    connection.set_listener("", listener)
    connection.connect("app", passcode, wait=True)
    return connection


def session():
    """Sends, and then processes and acknowledges messages, until one of type RejectedConfig."""
    global sent
    listener = Listener()
    connection = connect(listener)
    if not sent:
        connection.send("/exchange/creditors_out/" + debtor, body, content_type="application/json",
                        headers={"type": "ConfigureAccount"}, receipt="configured")
        listener.next("receipt")  # the message is on disk now; without a receipt, it is sent again
        sent = True
        print("sent", flush=True)
    connection.subscribe("/queue/creditors_in", id="inbox", ack="client-individual", headers={"prefetch-count": "100"})
    while True:
        message = listener.next("message")
        if message.headers["message-id"] not in processed:
            print(message.headers["type"], message.body, flush=True)
            processed.add(message.headers["message-id"])
        connection.ack(message.headers["ack"])  # it comes again otherwise
        if message.headers["type"] == "RejectedConfig":
            connection.disconnect()
            return


while True:
    try:
        session()
        break
    except (OSError, stomp.exception.StompException) as err:
        print(err, file=sys.stderr)
        time.sleep(1)
