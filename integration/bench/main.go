// Command bench measures a cluster from outside, over the HTTP API, with closed-loop clients: each sends its next
// request when it has the answer to its last. It starts clusters of its own, or measures one that runs, and compares
// it with any other Vault-compatible one in the same run, alternately.
//
// What it reports is what clients saw, and the CPU time that all server processes together took for it. It shares the
// machine with them: its own CPU time is in the table, so that nobody has to guess how much it took.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"conclave/integration/lab"
)

// options are the flags.
type options struct {
	workloads []string
	clients   []int
	nodes     []int
	warmUp    time.Duration
	length    time.Duration
	rounds    int
	secrets   int
	size      int
	leader    bool
	binary    string
	cluster   string
	against   string
	format    string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:])
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	b := &bench{options: o, report: report{format: o.format, out: os.Stdout}}
	if o.against != "" {
		other, err := lab.Open(o.against)
		if err != nil {
			return err
		}
		defer other.Detach()
		if b.other, err = prepare(ctx, other, o, "theirs"); err != nil {
			return fmt.Errorf("prepare %s: %w", o.against, err)
		}
		defer b.other.close()
	}
	if o.cluster != "" {
		ours, err := lab.Open(o.cluster)
		if err != nil {
			return err
		}
		defer ours.Detach()
		err = b.measure(ctx, ours)
		return errors.Join(err, b.report.end())
	}
	for _, nodes := range o.nodes {
		if err := b.measureNew(ctx, nodes); err != nil {
			return errors.Join(err, b.report.end())
		}
	}
	return b.report.end()
}

func parse(args []string) (options, error) {
	var o options
	var workloads, clients, nodes string
	var seconds, warm float64
	var quick bool
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.StringVar(&workloads, "workloads", strings.Join(names(), ","), "what to measure")
	flags.StringVar(&clients, "clients", "1,16,64,256", "numbers of clients")
	flags.StringVar(&nodes, "nodes", "1,3", "sizes of the clusters to start")
	flags.Float64Var(&seconds, "seconds", 5, "length of each measurement")
	flags.Float64Var(&warm, "warm-up", 1, "seconds before each measurement that don't count")
	flags.IntVar(&o.rounds, "rounds", 0, "measurements of each row, of which the median counts; default 1, 3 with -against")
	flags.IntVar(&o.secrets, "secrets", 10_000, "how many secrets there are, 100 in each directory")
	flags.IntVar(&o.size, "size", 300, "bytes of each secret")
	flags.BoolVar(&o.leader, "leader", false, "send everything to the leader; default: to all nodes in turn")
	flags.StringVar(&o.binary, "binary", "", "the server to start; default: build it")
	flags.StringVar(&o.cluster, "cluster", "", "measure the running cluster that this cluster.json describes")
	flags.StringVar(&o.against, "against", "", "compare with the cluster that this cluster.json describes")
	flags.StringVar(&o.format, "format", "table", "table or json")
	flags.BoolVar(&quick, "quick", false, "a look in a minute: three nodes, 1 and 64 clients, 2 seconds each")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	given := make(map[string]bool)
	flags.Visit(func(f *flag.Flag) { given[f.Name] = true })
	quickly := func(name string) bool { return quick && !given[name] }
	if quickly("clients") {
		clients = "1,64"
	}
	if quickly("nodes") {
		nodes = "3"
	}
	if quickly("seconds") {
		seconds = 2
	}
	if quickly("secrets") {
		o.secrets = 1000
	}
	if o.rounds <= 0 {
		o.rounds = 1
		if o.against != "" {
			o.rounds = 3
		}
	}
	o.workloads = strings.Split(workloads, ",")
	for _, w := range o.workloads {
		if !slices.Contains(names(), w) {
			return o, fmt.Errorf("there is no workload %q; there are %s", w, strings.Join(names(), ", "))
		}
	}
	o.length, o.warmUp = time.Duration(seconds*float64(time.Second)), time.Duration(warm*float64(time.Second))
	var err error
	if o.clients, err = numbers(clients); err != nil {
		return o, fmt.Errorf("-clients: %w", err)
	}
	if o.nodes, err = numbers(nodes); err != nil {
		return o, fmt.Errorf("-nodes: %w", err)
	}
	if o.secrets < keysPerFolder || o.size < 0 || o.length <= 0 || o.format != "table" && o.format != "json" || flags.NArg() > 0 {
		return o, fmt.Errorf("at least %d secrets, a positive length, the format table or json, and nothing but flags", keysPerFolder)
	}
	return o, nil
}

func numbers(list string) ([]int, error) {
	var all []int
	for part := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%q is not a positive number", part)
		}
		all = append(all, n)
	}
	return all, nil
}

// bench is one run.
type bench struct {
	options
	report report
	other  *target // nil: nothing to compare with
}

func progress(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// measureNew measures a cluster that it starts, and ends.
func (b *bench) measureNew(ctx context.Context, nodes int) (err error) {
	dir, err := os.MkdirTemp("", "conclave-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	binary := b.binary
	if binary == "" {
		progress("building the server")
		if binary, err = lab.Build(ctx, dir, false); err != nil {
			return err
		}
	}
	progress("starting a cluster of %d", nodes)
	l, err := lab.Start(ctx, lab.Options{Binary: binary, Dir: filepath.Join(dir, "lab"), Nodes: nodes})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	return b.measure(ctx, l)
}

// measure takes all rows of one cluster and, if there is one to compare with, of that one, alternately.
func (b *bench) measure(ctx context.Context, l *lab.Lab) error {
	ours, err := prepare(ctx, l, b.options, "ours")
	if err != nil {
		return err
	}
	defer ours.close()
	for _, w := range b.workloads {
		for _, clients := range b.clients {
			var mine, theirs []row
			for round := range b.rounds {
				r, err := b.once(ctx, ours, w, clients)
				if err != nil {
					return err
				}
				mine = append(mine, r)
				progress("%-8s %d nodes %4d clients, round %d: %s", w, r.Nodes, clients, round+1, r.summary())
				if b.other == nil {
					continue
				}
				if r, err = b.once(ctx, b.other, w, clients); err != nil {
					return err
				}
				theirs = append(theirs, r)
				progress("%-8s %d nodes %4d clients, theirs: %s", w, r.Nodes, clients, r.summary())
			}
			b.report.add(mine, theirs)
		}
	}
	return nil
}

func (b *bench) once(ctx context.Context, t *target, workload string, clients int) (row, error) {
	r, err := t.run(ctx, t.workload(workload), clients, b.warmUp, b.length)
	r.Workload, r.Clients, r.Nodes, r.Cluster = workload, clients, t.lab.Nodes(), t.name
	return r, err
}
