package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// report collects the rows and writes them at the end.
type report struct {
	format string
	out    io.Writer
	lines  []line
}

// line is what was measured of one workload with one number of clients.
type line struct {
	Ours   row    `json:"ours"`
	Theirs *row   `json:"theirs,omitempty"`
	Ratio  *ratio `json:"ratio,omitempty"`
}

// ratio compares: ours divided by theirs, round by round.
type ratio struct {
	OpsPerSec spread `json:"ops_per_s"`
	CPU       spread `json:"server_cpu"`
	P50       spread `json:"p50"`
}

// spread is the median of some rounds and their extremes.
type spread struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

func (s spread) String() string { return fmt.Sprintf("%.2f (%.2f–%.2f)", s.Median, s.Low, s.High) }

func spreadOf(values []float64) spread {
	values = slices.Sorted(slices.Values(values))
	return spread{values[len(values)/2], values[0], values[len(values)-1]}
}

// add takes the rounds of one line. theirs is empty without a comparison.
func (r *report) add(ours, theirs []row) {
	l := line{Ours: median(ours)}
	if len(theirs) > 0 {
		other := median(theirs)
		l.Theirs = &other
		each := func(member func(row) float64) spread {
			var ratios []float64
			for i := range ours {
				if d := member(theirs[i]); d > 0 {
					ratios = append(ratios, member(ours[i])/d)
				}
			}
			if len(ratios) == 0 {
				return spread{}
			}
			return spreadOf(ratios)
		}
		l.Ratio = &ratio{
			OpsPerSec: each(func(r row) float64 { return r.OpsPerSec }),
			CPU:       each(func(r row) float64 { return r.CPU }),
			P50:       each(func(r row) float64 { return r.P50 }),
		}
	}
	r.lines = append(r.lines, l)
}

// median is the round with the median throughput.
func median(rounds []row) row {
	sorted := slices.SortedFunc(slices.Values(rounds), func(a, b row) int { return cmp.Compare(a.OpsPerSec, b.OpsPerSec) })
	return sorted[len(sorted)/2]
}

func (r *report) end() error {
	if r.format == "json" {
		encoder := json.NewEncoder(r.out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(r.lines)
	}
	return r.table()
}

func (r *report) table() error {
	w := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	columns := []string{"workload", "nodes", "clients", "ops/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU-µs/op", "client µs/op", "RSS MB", "errors", "cluster"}
	if _, err := fmt.Fprintln(w, strings.Join(columns, "\t")+"\t"); err != nil {
		return err
	}
	for _, l := range r.lines {
		rows := []row{l.Ours}
		if l.Theirs != nil {
			rows = append(rows, *l.Theirs)
		}
		for _, m := range rows {
			_, err := fmt.Fprintf(w, "%s\t%d\t%d\t%.0f\t%.2f\t%.2f\t%.2f\t%.0f\t%.0f\t%.0f\t%d\t%s\t\n", m.Workload, m.Nodes, m.Clients,
				m.OpsPerSec, m.P50, m.P99, m.P999, m.CPU, m.Client, m.RSS, m.Errors, m.Cluster)
			if err != nil {
				return err
			}
		}
		if l.Ratio != nil {
			_, err := fmt.Fprintf(w, "%s\t%d\t%d\t%s\t%s\t\t\t%s\t\t\t\tours/theirs\t\n", l.Ours.Workload, l.Ours.Nodes, l.Ours.Clients,
				l.Ratio.OpsPerSec, l.Ratio.P50, l.Ratio.CPU)
			if err != nil {
				return err
			}
		}
	}
	return w.Flush()
}
