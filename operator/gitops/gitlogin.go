// Copyright The Fairlead Authors.
// SPDX-License-Identifier: Apache-2.0

package gitops

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"

	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

// loginFor turns a Secret's data (nil if there is none) into what go-git wants for a URL. Keys have the names that
// Flux uses, so that one Secret serves both.
func loginFor(rawURL string, secret map[string][]byte) (gitLogin, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return gitLogin{}, fmt.Errorf("parse URL: %w", err)
	}
	if u.Scheme == "ssh" {
		return sshLogin(u, secret)
	}
	return httpLogin(u, secret)
}

func httpLogin(u *url.URL, secret map[string][]byte) (gitLogin, error) {
	if u.User != nil {
		return gitLogin{}, errors.New("the URL holds credentials: put them into a Secret, URLs are shown in status and policies")
	}
	login := gitLogin{caBundle: secret["ca.crt"]}
	user, password, bearer := string(secret["username"]), string(secret["password"]), string(secret["bearerToken"])
	if (password != "" || bearer != "") && u.Scheme != "https" && !isLoopback(u.Hostname()) {
		return gitLogin{}, errors.New("the Secret holds a password or token: that is only sent over https")
	}
	switch {
	case bearer != "":
		login.auth = &githttp.TokenAuth{Token: bearer}
	case user != "" || password != "":
		login.auth = &githttp.BasicAuth{Username: user, Password: password}
	}
	return login, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func sshLogin(u *url.URL, secret map[string][]byte) (gitLogin, error) {
	if len(secret["identity"]) == 0 || len(secret["known_hosts"]) == 0 {
		return gitLogin{}, errors.New("ssh needs a Secret with identity (private key) and known_hosts")
	}
	user := u.User.Username()
	if user == "" {
		user = "git"
	}
	keys, err := gitssh.NewPublicKeys(user, secret["identity"], string(secret["password"]))
	if err != nil {
		return gitLogin{}, fmt.Errorf("read identity of the Secret: %w", err)
	}
	if keys.HostKeyCallback, err = hostKeys(secret["known_hosts"]); err != nil {
		return gitLogin{}, fmt.Errorf("read known_hosts of the Secret: %w", err)
	}
	return gitLogin{auth: keys}, nil
}

// hostKeys goes through a file because that is the only thing the knownhosts package reads.
func hostKeys(data []byte) (ssh.HostKeyCallback, error) {
	f, err := os.CreateTemp("", "known_hosts")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	if _, err := f.Write(data); err != nil {
		f.Close()
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	return knownhosts.New(f.Name())
}
