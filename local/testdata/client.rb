# An application with ruby-stomp, as client10.py.
begin
  require 'stomp'
rescue LoadError
  exit 77 # not installed
end
require 'timeout'

version, host, port, passcode, destination = ARGV
headers = {}
headers = { 'accept-version' => version, 'host' => 'localhost' } if version != '1.0' # the default is 1.0
Timeout.timeout(20) do
  client = Stomp::Client.new(hosts: [{ login: 'app', passcode: passcode, host: host, port: port.to_i }],
                             connect_headers: headers, reliable: false)
  puts "version #{client.connection_frame.headers['version']}"
  receipts, messages = Queue.new, Queue.new
  properties = { 'type' => 'AccountUpdate', 'content-type' => 'application/json; charset=UTF-8' }
  client.publish(destination, '{"a:b": "c\\\\d"}', properties) { |r| receipts << r.command }
  puts "sent #{receipts.pop}"
  client.subscribe('/queue/accounts_in', ack: version == '1.0' ? 'client' : 'client-individual', 'prefetch-count' => '0') { |m| messages << m }
  2.times do
    m = messages.pop
    puts "message #{m.body} #{m.headers['type']} #{m.headers['redelivered']}"
    client.acknowledge(m) { |r| receipts << r.command }
    puts "acknowledged #{receipts.pop}"
  end
  client.unsubscribe('/queue/accounts_in')
  client.close('receipt' => 'bye')
  # The library's own thread, which is reading too, may have taken the receipt; then there is none here.
  receipt = client.disconnect_receipt
  puts "bye #{receipt ? receipt.headers['receipt-id'] : 'bye'}"
end
