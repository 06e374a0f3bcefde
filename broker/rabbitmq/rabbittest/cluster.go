package rabbittest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Cluster is a RabbitMQ cluster on this machine. In a network partition, the smaller part
// pauses (pause_minority).
type Cluster struct {
	Nodes []*Server

	home       string   // home directory of all nodes, in their root, which contains their common Erlang cookie
	mapperPort int      // of the port mapper
	mapper     *process // Erlang's port mapper (epmd), used by all nodes; nil before Start
}

// NewCluster prepares a cluster, without starting it.
func NewCluster(size int) (*Cluster, error) {
	c := new(Cluster)
	for range size {
		s, err := newServer(c)
		if err != nil {
			return c, errors.Join(err, c.Remove())
		}
		c.Nodes = append(c.Nodes, s)
	}
	return c, nil
}

// conf returns the cluster's part of the configuration of the node that is added next, under
// this name. All nodes but the first join the first one.
func (c *Cluster) conf(name string) string {
	conf := "cluster_partition_handling = pause_minority\n"
	if len(c.Nodes) == 0 {
		return conf
	}
	return conf + "cluster_formation.peer_discovery_backend = classic_config\n" +
		"cluster_formation.classic_config.nodes.1 = " + c.Nodes[0].name + "\n" +
		"cluster_formation.classic_config.nodes.2 = " + name + "\n"
}

// Start starts the port mapper and all nodes, one after the other. If Start fails, some of them
// may be running until Remove is called.
func (c *Cluster) Start() error {
	first := c.Nodes[0]
	output, err := os.OpenFile(filepath.Join(first.dir, "mapper"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer output.Close()
	// With SHARED_MAPPER in the node's environment, the script starts only the program that it is
	// given, which is the port mapper itself here.
	if c.mapper, err = startProcess(first.inRoot("/bin/sh"), "epmd", first.env, output); err != nil {
		return err
	}
	for _, s := range c.Nodes {
		if err := s.Start(); err != nil {
			return err
		}
	}
	return nil
}

// URLs returns the URLs of all nodes, separated by commas.
func (c *Cluster) URLs() string {
	var urls []string
	for _, s := range c.Nodes {
		urls = append(urls, s.URL())
	}
	return strings.Join(urls, ",")
}

// Isolate disconnects a node from the others; clients still reach all nodes. The node uses a wrong
// cookie for the others from then on, so that no connection to them succeeds until Reconnect.
func (c *Cluster) Isolate(s *Server) error {
	return s.Control("eval", fmt.Sprintf("[begin erlang:set_cookie(N, cut_off), erlang:disconnect_node(N) end || N <- [%s]], ok.", c.others(s)))
}

// Reconnect is the inverse of Isolate.
func (c *Cluster) Reconnect(s *Server) error {
	return s.Control("eval", fmt.Sprintf("[begin erlang:set_cookie(N, erlang:get_cookie()), net_kernel:connect_node(N) end || N <- [%s]], ok.", c.others(s)))
}

// AwaitWhole waits until all nodes are connected to each other. It returns the error of rabbitmqctl
// if a node is not connected to all others after about startTime.
func (c *Cluster) AwaitWhole() error {
	deadline := time.Now().Add(startTime)
	for _, s := range c.Nodes {
		for {
			err := s.Control("await_online_nodes", fmt.Sprint(len(c.Nodes)))
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				return err
			}
			time.Sleep(time.Second) // the node pauses while it is disconnected
		}
	}
	return nil
}

// others returns the names of all nodes but s, as the elements of a list in Erlang.
func (c *Cluster) others(s *Server) string {
	var names []string
	for _, other := range c.Nodes {
		if other != s {
			names = append(names, "'"+other.name+"'")
		}
	}
	return strings.Join(names, ", ")
}

// Remove stops the cluster and removes all its files.
func (c *Cluster) Remove() error {
	var errs []error
	for _, s := range slices.Backward(c.Nodes) {
		errs = append(errs, s.Remove())
	}
	if c.mapper != nil {
		c.mapper.kill()
	}
	return errors.Join(errs...)
}
