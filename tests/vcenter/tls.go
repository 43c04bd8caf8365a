package main

import "crypto/tls"

// tlsConfig serves with a certificate of the test's own making.
func tlsConfig(certificate, key string) *tls.Config {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	check(err)
	return &tls.Config{Certificates: []tls.Certificate{pair}}
}
