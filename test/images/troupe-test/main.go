// Command troupe-test is what the containers of the tests run: a server that
// tells who asks, and every way of behaving badly.
package main

import (
	"flag"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

// verbs are the ways to behave.
var verbs = map[string]func(args []string) error{
	"serve":   serve,
	"exit":    exit,
	"crash":   crash,
	"memory":  memory,
	"stress":  stress,
	"signals": signals,
	"count":   count,
	"check":   check,
	"sicken":  sicken,
}

// programs are verbs by the name of the program that a manifest calls.
var programs = map[string]string{"stress": "stress", "server": "sicken"}

func main() {
	verb, args := "serve", os.Args[1:]
	if name := programs[filepath.Base(os.Args[0])]; name != "" {
		verb = name
	} else if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		verb, args = args[0], args[1:]
	}
	run, ok := verbs[verb]
	if !ok {
		names := make([]string, 0, len(verbs))
		for n := range verbs {
			names = append(names, n)
		}
		sort.Strings(names)
		fmt.Fprintf(os.Stderr, "troupe-test: no verb %q; there are %s\n", verb, strings.Join(names, ", "))
		os.Exit(2)
	}
	if err := run(args); err != nil {
		fmt.Fprintf(os.Stderr, "troupe-test %s: %v\n", verb, err)
		os.Exit(1)
	}
}

// serve answers HTTP and UDP with who asked and who answers, until SIGTERM.
func serve(args []string) error {
	f := flag.NewFlagSet("serve", flag.ExitOnError)
	port := f.Int("port", 8080, "HTTP `port`")
	udp := f.Int("udp", 0, "UDP `port` of an echo; 0: none")
	delay := f.Duration("delay", 0, "wait before listening")
	text := f.String("text", "", "the first line of every page")
	grace := f.Duration("grace", 0, "go on answering that long after SIGTERM")
	_ = f.Parse(args)

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	select {
	case <-time.After(*delay):
	case <-stop:
		return nil
	}
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	var healthy sync.Map // path → status code that it answers instead of 200
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if code, ok := healthy.Load(r.URL.Path); ok {
			w.WriteHeader(code.(int))
		}
		if *text != "" {
			fmt.Fprintln(w, *text)
		}
		fmt.Fprintf(w, "host: %s\nfrom: %s\nto: %s\nrequest: %s %s\n", host, r.RemoteAddr, r.Context().Value(http.LocalAddrContextKey), r.Method, r.URL)
		_ = r.Header.Write(w)
	})
	http.HandleFunc("/env", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, strings.Join(os.Environ(), "\n"))
	})
	http.HandleFunc("/exit", func(_ http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.FormValue("code"))
		os.Exit(code)
	})
	http.HandleFunc("/set", func(_ http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.FormValue("code"))
		healthy.Store(r.FormValue("path"), code)
	})
	failed := make(chan error, 2)
	go func() { failed <- http.ListenAndServe(":"+strconv.Itoa(*port), nil) }()
	if *udp != 0 {
		go func() { failed <- echo(*udp, host) }()
	}
	fmt.Printf("%s listens on %d\n", host, *port)
	select {
	case err := <-failed:
		return err
	case s := <-stop:
		fmt.Printf("%s got %s\n", host, s)
		time.Sleep(*grace)
		return nil
	}
}

// sicken answers /healthz as Kubernetes' example does: well for 10 seconds, and
// then with 500.
func sicken([]string) error {
	started := time.Now()
	http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if ran := time.Since(started); ran > 10*time.Second {
			http.Error(w, fmt.Sprintf("error: %v", ran.Seconds()), http.StatusInternalServerError)
			return
		}
		fmt.Fprint(w, "ok")
	})
	return http.ListenAndServe(":8080", nil)
}

// echo answers each datagram with its sender, its text and this host.
func echo(port int, host string) error {
	c, err := net.ListenPacket("udp", ":"+strconv.Itoa(port))
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return err
		}
		if _, err := c.WriteTo(fmt.Appendf(nil, "host: %s from: %s text: %s", host, from, buf[:n]), from); err != nil {
			return err
		}
	}
}

// exit ends with a code.
func exit(args []string) error {
	f := flag.NewFlagSet("exit", flag.ExitOnError)
	after := f.Duration("after", 0, "wait before")
	message := f.String("message", "", "what to write to /dev/termination-log")
	_ = f.Parse(args)
	code := 0
	if f.NArg() > 0 {
		var err error
		if code, err = strconv.Atoi(f.Arg(0)); err != nil {
			return err
		}
	}
	if *message != "" {
		if err := os.WriteFile("/dev/termination-log", []byte(*message), 0o644); err != nil {
			return err
		}
	}
	time.Sleep(*after)
	os.Exit(code)
	return nil
}

// crash dies by a signal of its own.
func crash(args []string) error {
	f := flag.NewFlagSet("crash", flag.ExitOnError)
	after := f.Duration("after", 0, "wait before")
	_ = f.Parse(args)
	fmt.Println("alive")
	time.Sleep(*after)
	return syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

// memory takes memory until it has the amount, and keeps it.
func memory(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("give one amount, such as 200Mi")
	}
	total, err := resource.ParseQuantity(args[0])
	if err != nil {
		return err
	}
	take(total.Value(), 1<<20, 0)
	return stay()
}

// stay stays for ever, also where nothing else runs: Go takes select {} for a
// deadlock then.
func stay() error {
	for {
		time.Sleep(time.Hour)
	}
}

var taken [][]byte

// take allocates and touches memory in steps.
func take(total, step int64, pause time.Duration) {
	for n := int64(0); n < total; n += step {
		b := make([]byte, min(step, total-n))
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		taken = append(taken, b)
		time.Sleep(pause)
	}
	fmt.Printf("took %d bytes\n", total)
}

// stress takes the flags of the image vish/stress.
func stress(args []string) error {
	f := flag.NewFlagSet("stress", flag.ExitOnError)
	cpus := f.Int("cpus", 0, "burn that many")
	total := f.String("mem-total", "0", "take that much memory")
	step := f.String("mem-alloc-size", "4Ki", "in steps of this")
	pause := f.Duration("mem-alloc-sleep", time.Millisecond, "with pauses of this")
	_ = f.Parse(args)
	amount, err := resource.ParseQuantity(*total)
	if err != nil {
		return err
	}
	size, err := resource.ParseQuantity(*step)
	if err != nil {
		return err
	}
	for range *cpus {
		go func() {
			for x := 1.0; x != 0; x = math.Sqrt(x) { // never 0: burns for ever
			}
		}()
	}
	take(amount.Value(), max(1, size.Value()), *pause)
	return stay()
}

// signals prints every signal, and ends with SIGTERM unless told to ignore it.
func signals(args []string) error {
	f := flag.NewFlagSet("signals", flag.ExitOnError)
	ignore := f.Bool("ignore-term", false, "go on after SIGTERM")
	linger := f.Duration("linger", 0, "end that long after SIGTERM")
	_ = f.Parse(args)
	c := make(chan os.Signal, 16)
	signal.Notify(c)
	fmt.Println("waiting")
	for s := range c {
		if s == syscall.SIGURG {
			continue // the Go runtime's own
		}
		fmt.Printf("got %s\n", s)
		if s == syscall.SIGTERM && !*ignore {
			time.Sleep(*linger)
			return nil
		}
	}
	return nil
}

// count prints numbered lines at a rate.
func count(args []string) error {
	f := flag.NewFlagSet("count", flag.ExitOnError)
	rate := f.Int("rate", 100, "lines a second; 0: as fast as they are read")
	to := f.Int("to", 0, "stop after that many; 0: never")
	width := f.Int("width", 0, "pad lines to that many bytes")
	both := f.Bool("stderr", false, "every second line to standard error")
	_ = f.Parse(args)
	var tick <-chan time.Time
	if *rate > 0 {
		tick = time.Tick(time.Second / time.Duration(*rate))
	}
	for n := 1; *to == 0 || n <= *to; n++ {
		if tick != nil {
			<-tick
		}
		var w io.Writer = os.Stdout
		if *both && n%2 == 0 {
			w = os.Stderr
		}
		line := "line " + strconv.Itoa(n)
		if len(line) < *width {
			line += " " + strings.Repeat(".", *width-len(line)-1)
		}
		if _, err := fmt.Fprintln(w, line); err != nil {
			return err
		}
	}
	return nil
}

// check asks a URL and ends with 0 if it answers 200: for use in exec.
func check(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("give one URL")
	}
	c := http.Client{Timeout: 5 * time.Second}
	r, err := c.Get(args[0])
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if _, err := io.Copy(os.Stdout, r.Body); err != nil {
		return err
	}
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", args[0], r.Status)
	}
	return nil
}
