// An application of a creditors agent, with go-stomp: it configures an account, and
// processes what comes in.
//
//	go run application.go STATE-FOLDER 12.34.ab.cd.00.00.00.01 < configure-account.json
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-stomp/stomp/v3"
)

func main() {
	state, debtor := os.Args[1], os.Args[2]
	body, err := io.ReadAll(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	processed := make(map[string]bool) // in earnest: in the database, in the transaction that processes the message
	sent := false
	for {
		err := session(state, func(conn *stomp.Conn) error {
			if !sent {
				// Send waits for the receipt: the message is on disk then. Without one, it is sent again.
				err := conn.Send("/exchange/creditors_out/"+debtor, "application/json", body,
					stomp.SendOpt.Receipt, stomp.SendOpt.Header("type", "ConfigureAccount"))
				if err != nil {
					return err
				}
				sent = true
				fmt.Println("sent")
			}
			return receive(conn, processed)
		})
		if err == nil {
			return
		}
		log.Print(err)
		time.Sleep(time.Second)
	}
}

// session connects, and calls do. The passcode is read anew each time, since each service makes a
// new one.
func session(state string, do func(*stomp.Conn) error) error {
	passcode, err := os.ReadFile(filepath.Join(state, "passcode"))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(state, "door.json"))
	if err != nil {
		return err
	}
	var door struct{ TCP string }
	if err := json.Unmarshal(text, &door); err != nil {
		return err
	}
	conn, err := stomp.Dial("tcp", door.TCP,
		stomp.ConnOpt.Login("app", strings.TrimSpace(string(passcode))), stomp.ConnOpt.HeartBeat(10*time.Second, 10*time.Second))
	if err != nil {
		return err
	}
	defer conn.Disconnect() // waits for the receipt
	return do(conn)
}

// receive processes and acknowledges messages, until one of type RejectedConfig.
func receive(conn *stomp.Conn, processed map[string]bool) error {
	inbox, err := conn.Subscribe("/queue/creditors_in", stomp.AckClientIndividual, stomp.SubscribeOpt.Header("prefetch-count", "100"))
	if err != nil {
		return err
	}
	for m := range inbox.C {
		if m.Err != nil {
			return m.Err
		}
		id, kind := m.Header.Get("message-id"), m.Header.Get("type")
		if !processed[id] {
			fmt.Println(kind, string(m.Body))
			processed[id] = true
		}
		if err := conn.Ack(m); err != nil { // it comes again otherwise
			return err
		}
		if kind == "RejectedConfig" {
			return nil
		}
	}
	return errors.New("the connection has ended")
}
