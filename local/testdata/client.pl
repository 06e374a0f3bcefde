# An application with Net::Stomp, as client10.py.
use strict;
use warnings;
eval { require Net::Stomp; 1 } or exit 77; # not installed

$| = 1;
my ($host, $port, $passcode, $destination) = @ARGV;
my $stomp = Net::Stomp->new({ hostname => $host, port => $port });
my $connected = $stomp->connect({ login => 'app', passcode => $passcode });
print "version ", $connected->headers->{version}, "\n";
print "session\n" if $stomp->session_id;
my $sent = $stomp->send_with_receipt({
    destination => $destination, type => 'AccountUpdate', 'content-type' => 'application/json', body => '{"a:b": "c\\\\d"}', timeout => 10,
});
print "sent ", $sent ? "RECEIPT" : "nothing", "\n";
my $committed = $stomp->send_transactional({
    destination => $destination, type => 'AccountUpdate', 'content-type' => 'application/json', body => '{}', timeout => 10,
});
print "committed ", $committed ? "yes" : "no", "\n";
$stomp->subscribe({ destination => '/queue/accounts_in', ack => 'client', 'prefetch-count' => 1 });
for (1 .. 2) {
    my $message = $stomp->receive_frame({ timeout => 10 });
    print "message ", $message->body, " ", $message->headers->{type}, " ", $message->headers->{redelivered}, "\n";
    $stomp->ack({ frame => $message });
}
$stomp->unsubscribe({ destination => '/queue/accounts_in' });
$stomp->disconnect;
