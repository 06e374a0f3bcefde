# An application, as its author would write it with stomp.py: it sends each
# line of its input to the peer and waits for the receipt, then answers three
# messages of its inbox and acknowledges them. It prints what it gets.
import queue
import sys

try:
    import stomp

    stomp.Connection12
except (ImportError, AttributeError):
    sys.exit(77)  # not installed

host, port, passcode, destination = sys.argv[1:]
receipts, messages = queue.Queue(), queue.Queue()  # they may overtake each other


class Listener(stomp.ConnectionListener):
    def on_receipt(self, frame):
        receipts.put("receipt " + frame.headers["receipt-id"])

    def on_message(self, frame):
        messages.put(frame)

    def on_error(self, frame):
        receipts.put("error " + frame.body)


def print_receipt():
    print(receipts.get(timeout=10))


connection = stomp.Connection12([(host, int(port))], heartbeats=(5000, 5000))
connection.set_listener("", Listener())
connection.connect("app", passcode, wait=True)


def send(body, receipt):
    connection.send(destination, body, content_type="application/json", receipt=receipt,
                    headers={"type": "AccountUpdate", "persistent": "true"})
    print_receipt()


for i, line in enumerate(sys.stdin):
    send(line.strip(), "line %d: %s" % (i, "\\"))

connection.subscribe("/queue/accounts_in", id=7, ack="client-individual", headers={"prefetch-count": "1"})
for i in range(3):
    message = messages.get(timeout=10)
    headers, body = message.headers, message.body
    print("message", body, headers["type"], headers["debtor-id"], headers["destination"], headers["redelivered"])
    send("answer to " + body, str(i))
    if i == 1:
        connection.nack(headers["ack"])  # it comes again, after a pause
    else:
        connection.ack(headers["ack"], receipt="ack")
        print_receipt()
connection.unsubscribe(id=7)
connection.disconnect(receipt="bye")
print_receipt()
