package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/troupe-sh/troupe/actors/images"
	"github.com/troupe-sh/troupe/cmd/internal/config"
	"github.com/troupe-sh/troupe/runtime/host"
)

// reloads takes over what changed in the configuration, at each SIGHUP until
// ctx ends.
func (a *agent) reloads(ctx context.Context) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		defer signal.Stop(hangups)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangups:
				a.reload()
			}
		}
	}()
}

// reload is all or nothing: of a configuration that is wrong nothing is taken
// over. The machine's own resolvers are read in any case.
func (a *agent) reload() {
	if dns, err := host.DNS(); err != nil {
		a.log.Error("resolvers not reloaded", "error", err)
	} else {
		a.dns.Store(&dns)
		a.log.Info("resolvers reloaded", "servers", strings.Join(dns.Servers, " "))
	}
	next, err := parse(a.options.args)
	var problems config.Problems
	switch {
	case errors.As(err, &problems):
		for _, p := range problems {
			a.log.Error("configuration not reloaded", "error", p.String())
		}
		return
	case err != nil:
		a.log.Error("configuration not reloaded", "error", err)
		return
	}
	taken, left := config.Changed(&a.options.Config, &next.Config)
	for _, key := range left {
		a.log.Warn("needs restart", "key", key)
	}
	a.options.LogLevel, a.options.level, a.options.Limits, a.options.ImageGC = next.LogLevel, next.level, next.Limits, next.ImageGC
	a.setGC()
	a.apply()
	a.log.Info("configuration reloaded", "changed", strings.Join(taken, " "))
}

// apply puts into force what can be reloaded.
func (a *agent) apply() {
	a.level.Set(a.options.level)
	a.gateway.Limit(a.options.Limits.Reads, a.options.Limits.Writes)
}

// setGC is what the next look at the images goes by.
func (a *agent) setGC() {
	c := a.options.ImageGC
	a.gc.Store(&images.GC{High: c.HighPercent, Low: c.LowPercent, MinAge: c.MinAge.Duration})
}
