package main

import (
	"maps"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// image is one archive that is built. Its layers are those of base, then its own.
type image struct {
	name     string            // of the archive
	tags     []string          // what manifests call it
	base     string            // another image
	packages []string          // of Debian: their files, and the libraries that their programs load
	busybox  bool              // Debian's busybox-static with a link for each applet
	test     bool              // the program troupe-test
	dirs     []string          // empty directories; those named tmp for everybody
	files    map[string]string // path → text; executable if it starts with #!
	links    map[string]string // path → target
	config   v1.Config
}

const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// images are all that tests, examples and manifests use, each after its base.
// The names are those that published manifests write; where the real image is
// not made of Debian packages, troupe-test stands in for it.
var images = []image{
	{
		name: "busybox",
		tags: []string{
			"busybox:latest", "busybox:1.28",
			"k8s.gcr.io/busybox:latest", "registry.k8s.io/busybox:latest", "registry.k8s.io/busybox:1.27.2",
			"registry.k8s.io/e2e-test-images/jessie-dnsutils:1.3",
		},
		busybox: true,
		dirs:    []string{"tmp", "root", "home", "var/tmp", "proc", "sys", "dev", "run"},
		links:   map[string]string{"usr/bin/env": "../../bin/env"},
		files:   with(accounts, "bin/printenv", printenv),
		config:  v1.Config{Env: []string{searchPath}, Cmd: []string{"sh"}},
	},
	{
		name:     "debian",
		tags:     []string{"debian:latest", "debian:stable", "debian:stable-slim"},
		packages: []string{"base-files", "bash", "coreutils", "dash", "findutils", "grep", "gzip", "hostname", "mawk", "netbase", "procps", "sed", "tar"},
		dirs:     []string{"tmp", "root", "home", "var/tmp", "proc", "sys", "dev", "run"},
		links: map[string]string{
			"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64",
			"var/run": "/run", "usr/bin/sh": "dash", "usr/bin/awk": "mawk",
		},
		files:  accounts,
		config: v1.Config{Env: []string{searchPath}, Cmd: []string{"bash"}},
	},
	{
		name:     "nginx",
		tags:     []string{"nginx:latest", "nginx:stable", "nginx:1.14.2", "nginx:1.16.1", "registry.k8s.io/nginx-slim:0.8"},
		base:     "debian",
		packages: []string{"nginx", "nginx-common"},
		dirs:     []string{"var/lib/nginx", "etc/nginx/conf.d"},
		links:    map[string]string{"var/log/nginx/access.log": "/dev/stdout", "var/log/nginx/error.log": "/dev/stderr"},
		files: map[string]string{
			"etc/nginx/nginx.conf":          nginxConf,
			"etc/nginx/conf.d/default.conf": nginxDefault,
		},
		config: v1.Config{
			Env:          []string{searchPath},
			Cmd:          []string{"nginx", "-g", "daemon off;"},
			ExposedPorts: map[string]struct{}{"80/tcp": {}},
			StopSignal:   "SIGQUIT",
		},
	},
	{
		name:     "redis",
		tags:     []string{"redis:latest", "registry.k8s.io/redis:e2e", "gcr.io/google_containers/redis:e2e", "gcr.io/google_samples/gb-redisslave:v1"},
		base:     "debian",
		packages: []string{"redis-server", "redis-tools"},
		dirs:     []string{"data"},
		config: v1.Config{
			Env:          []string{searchPath},
			Cmd:          []string{"redis-server", "--protected-mode", "no"},
			WorkingDir:   "/data",
			ExposedPorts: map[string]struct{}{"6379/tcp": {}},
			Volumes:      map[string]struct{}{"/data": {}},
		},
	},
	{
		name:   "troupe-test",
		tags:   []string{"troupe-test:latest", "troupe-test:1"},
		base:   "busybox",
		test:   true,
		config: v1.Config{Env: []string{searchPath}, Entrypoint: []string{"troupe-test"}, ExposedPorts: map[string]struct{}{"8080/tcp": {}}},
	},
	standIn("stress", 0, "", "vish/stress:latest"),
	{
		name:   "liveness",
		tags:   []string{"k8s.gcr.io/liveness:latest"},
		base:   "troupe-test",
		links:  map[string]string{"server": "/bin/troupe-test"},
		config: v1.Config{Env: []string{searchPath}, ExposedPorts: map[string]struct{}{"8080/tcp": {}}},
	},
	standIn("goproxy", 8080, "goproxy", "registry.k8s.io/goproxy:0.1"),
	{
		name:     "etcd",
		tags:     []string{"registry.k8s.io/etcd:3.5.1-0"}, // Debian's is 3.4
		base:     "debian",
		packages: []string{"etcd-server"},
		dirs:     []string{"var/lib/etcd"},
		links:    map[string]string{"usr/local/bin/etcd": "/usr/bin/etcd"},
		config:   v1.Config{Env: []string{searchPath}, Cmd: []string{"etcd"}, ExposedPorts: map[string]struct{}{"2379/tcp": {}}},
	},
	standIn("hello-app", 8080, "Hello, world!", "gcr.io/google-samples/hello-app:2.0"),
	standIn("node-hello", 8080, "Hello Kubernetes!", "gcr.io/google-samples/node-hello:1.0"),
	standIn("update-demo-kitten", 80, "kitten", "gcr.io/google_containers/update-demo:kitten"),
	standIn("update-demo-nautilus", 80, "nautilus", "gcr.io/google_containers/update-demo:nautilus"),
	standIn("gb-frontend", 80, "Guestbook", "gcr.io/google_samples/gb-frontend:v4", "gcr.io/google-samples/gb-frontend:v5", "docker.io/corelab/gb-frontend:v5"),
	{
		name:   "cassandra",
		tags:   []string{"gcr.io/google-samples/cassandra:v9"},
		base:   "troupe-test",
		files:  map[string]string{"run.sh": "#!/bin/sh\nexec troupe-test serve --port 9042 --text cassandra\n"},
		config: v1.Config{Env: []string{searchPath}},
	},
}

// standIn is troupe-test under another name: a server on a port, or vish/stress.
func standIn(name string, port int, text string, tags ...string) image {
	i := image{name: name, tags: tags, base: "troupe-test", config: v1.Config{Env: []string{searchPath}}}
	if port == 0 {
		i.links = map[string]string{"stress": "/bin/troupe-test"}
		i.config.Entrypoint = []string{"/stress"}
		return i
	}
	i.config.Cmd = []string{"troupe-test", "serve", "--port", decimal(port), "--text", text}
	i.config.ExposedPorts = map[string]struct{}{decimal(port) + "/tcp": {}}
	return i
}

// accounts are the users and groups that Debian has.
var accounts = map[string]string{
	"etc/passwd": `root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
nginx:x:101:101:nginx:/nonexistent:/usr/sbin/nologin
redis:x:999:999:redis:/data:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
`,
	"etc/group": `root:x:0:
daemon:x:1:
tty:x:5:
www-data:x:33:
nginx:x:101:
redis:x:999:
nogroup:x:65534:
`,
	"etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
}

// printenv is left out of Debian's busybox.
const printenv = `#!/bin/sh
[ $# -gt 0 ] || exec env
code=0
for name; do
	env | grep -q "^$name=" || { code=1; continue; }
	eval "echo \"\${$name}\""
done
exit $code
`

// with is a copy of files with one more.
func with(files map[string]string, path, text string) map[string]string {
	files = maps.Clone(files)
	files[path] = text
	return files
}

const nginxConf = `user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log /var/log/nginx/error.log notice;
events { worker_connections 1024; }
http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    log_format main '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"';
    access_log /var/log/nginx/access.log main;
    sendfile on;
    keepalive_timeout 65;
    include /etc/nginx/conf.d/*.conf;
}
`

const nginxDefault = `server {
    listen 80;
    server_name localhost;
    location / {
        root /usr/share/nginx/html;
        index index.html index.htm;
    }
}
`
