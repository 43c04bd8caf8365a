package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

var (
	calls     int64
	callsFile *os.File
	callsLock sync.Mutex
	called    = regexp.MustCompile(`<(?:[A-Za-z0-9]+:)?Body[^>]*>\s*<(?:[A-Za-z0-9]+:)?([A-Za-z_]+)`)
)

func note(format string, args ...interface{}) {
	callsLock.Lock()
	defer callsLock.Unlock()
	fmt.Fprintf(callsFile, format+"\n", args...)
}

// serve stands before the simulator: counts the calls, makes the faults of the connection, and gives the bundles out.
func serve(model *simulator.Model) {
	var err error
	callsFile, err = os.Create(filepath.Join(folder, "calls.log"))
	check(err)
	simulator.Map.Put(newEventManager())
	model.Service.TLS = nil
	model.Service.Listen = &url.URL{Host: "127.0.0.1:0"}
	if made.Password != "" {
		model.Service.Listen.User = url.UserPassword("reader", made.Password)
	}
	model.Service.NewServer()
	mux := http.NewServeMux()
	mux.HandleFunc("/sdk", func(w http.ResponseWriter, r *http.Request) { sdk(model.Service, w, r) })
	mux.HandleFunc("/diagnostics/", bundle)
	mux.Handle("/", model.Service.ServeMux)
	var pairs []tls.Certificate
	for at := 4; at+1 < len(os.Args); at += 2 {
		pair, err := tls.LoadX509KeyPair(os.Args[at], os.Args[at+1])
		check(err)
		pairs = append(pairs, pair)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Println(listener.Addr())
	os.Stdout.Sync()
	server := &http.Server{Handler: mux, TLSConfig: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if made.NewCertificateAfter > 0 && int(atomic.LoadInt64(&calls)) >= made.NewCertificateAfter {
			return &pairs[1], nil
		}
		return &pairs[0], nil
	}}}
	check(server.ServeTLS(listener, "", ""))
}

func sdk(service *simulator.Service, w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	number := int(atomic.AddInt64(&calls, 1))
	if name := called.FindSubmatch(body); name != nil {
		note("call %s", name[1])
	}
	for _, end := range made.ExpireAfter {
		if cookie, err := r.Cookie("vmware_soap_session"); err == nil && number == end {
			ctx := &simulator.Context{Session: &simulator.Session{UserSession: types.UserSession{Key: "the test"}}}
			simulator.Map.SessionManager().TerminateSession(ctx, &types.TerminateSession{SessionId: []string{cookie.Value}})
		}
	}
	if made.NewCertificateAfter > 0 && number >= made.NewCertificateAfter {
		w.Header().Set("Connection", "close") // whoever connects again meets the other certificate
	}
	time.Sleep(time.Duration(made.SlowCalls) * time.Millisecond)
	body = bytes.ReplaceAll(body, []byte(">EventManager</"), []byte(">"+eventsOf+"</"))
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	if made.BadEvent != "" {
		w = &garbling{w}
	}
	service.ServeSDK(w, r)
}

// garbling spoils the answers that hold an event of the bad kind.
type garbling struct{ http.ResponseWriter }

func (g *garbling) Write(data []byte) (int, error) {
	if bytes.Contains(data, []byte("ReadNextEventsResponse")) && bytes.Contains(data, []byte(made.BadEvent)) {
		data = bytes.ReplaceAll(data, []byte("<createdTime>"), []byte("<createdTime>never "))
	}
	return g.ResponseWriter.Write(data)
}

func bundle(w http.ResponseWriter, r *http.Request) {
	if _, err := r.Cookie("vmware_soap_session"); err != nil {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	of := strings.TrimSuffix(path.Base(r.URL.Path), ".tgz")
	note("download %s", of)
	data := read("bundle-" + simulator.Map.Get(reference("HostSystem", of)).(*simulator.HostSystem).Name + ".tgz")
	if data == nil {
		data = read("bundle.tgz")
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(data)))
	w.Write(data)
}
