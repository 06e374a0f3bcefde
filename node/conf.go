package node

import (
	"strings"

	"peerlink/node/pki"
)

// opensslConf is the template of root-ca.conf, the OpenSSL configuration that the
// reference scripts need in a directory made by [Init]. Peerlink does not use root-ca.conf;
// package check only searches it for the node's name. The names of sections and of environment variables are the names
// that the reference scripts use.
const opensslConf = `# OpenSSL configuration of this node's certificate authority.
# Written by "peerlink init" for those who use OpenSSL on the same directory.

[default]
name             = root-ca
default_ca       = ca_default
name_opt         = utf8,esc_ctrl,multiline,lname,align
# The scripts set these in the environment when they sign a peer certificate.
SWPT_SUBNET      =
DN_O             =
DN_OU            =
DN_SERIAL_NUMBER =
peer_subnet      = $ENV::SWPT_SUBNET
peer_o           = $ENV::DN_O
peer_ou          = $ENV::DN_OU
peer_serial      = $ENV::DN_SERIAL_NUMBER

# Who this node is.
[req]
default_bits       = 3072
default_md         = sha256
encrypt_key        = yes
prompt             = no
utf8               = yes
string_mask        = utf8only
distinguished_name = node_name

[node_name]
organizationName       = "@O@"
organizationalUnitName = "@OU@"
serialNumber           = "@ID@"

# How it signs.
[ca_default]
home             = $ENV::SWPT_CA_DIR
certificate      = $home/root-ca.crt
private_key      = $home/private/root-ca.key
database         = $home/db/index
serial           = $home/db/serial
crlnumber        = $home/db/crlnumber
new_certs_dir    = $home/certs
default_md       = sha256
default_days     = 365000
default_crl_days = 365
unique_subject   = no
copy_extensions  = none
policy           = node_policy

[node_policy]
countryName            = optional
stateOrProvinceName    = optional
organizationName       = match
organizationalUnitName = supplied
commonName             = optional
emailAddress           = optional
serialNumber           = supplied

# The root certificate.
[ca_ext]
basicConstraints     = critical,CA:true,pathlen:1
keyUsage             = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash

# The request that goes into info-bundles.
[ca_official_ext]
basicConstraints     = critical,CA:true,pathlen:0
keyUsage             = critical,keyCertSign,cRLSign
subjectKeyIdentifier = hash

# Peer certificates.
[sub_ca_ext]
basicConstraints       = critical,CA:true,pathlen:0
keyUsage               = critical,keyCertSign,cRLSign
nameConstraints        = critical,@peer_names
subjectKeyIdentifier   = hash
authorityKeyIdentifier = keyid:always
nsComment              = $default::peer_subnet

[peer_names]
permitted;dirName = peer_name

[peer_name]
organizationName       = $default::peer_o
organizationalUnitName = $default::peer_ou
serialNumber           = $default::peer_serial

# Server certificates.
[server_ext]
basicConstraints       = critical,CA:false
keyUsage               = critical,digitalSignature,keyEncipherment
extendedKeyUsage       = clientAuth,serverAuth
subjectKeyIdentifier   = hash
authorityKeyIdentifier = keyid:always

# Requests for server certificates.
[server_official_ext]
basicConstraints     = critical,CA:false
keyUsage             = critical,digitalSignature,keyEncipherment
extendedKeyUsage     = clientAuth,serverAuth
subjectKeyIdentifier = hash
`

func rootCAConf(id pki.Identity) []byte {
	return []byte(strings.NewReplacer("@O@", pki.Organization, "@OU@", id.Type.OU(), "@ID@", id.ID).Replace(opensslConf))
}
