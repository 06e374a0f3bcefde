package node

// RootCAConf is for tests that use OpenSSL on a node's directory.
var RootCAConf = rootCAConf
