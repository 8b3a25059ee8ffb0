package audit

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	log "conclave/audit"
	"conclave/cmd/conclave/client"
	"conclave/cmd/conclave/operator"

	"github.com/hashicorp/vault/api"
	"github.com/spf13/cobra"
)

func verify(s *client.Session) *cobra.Command {
	var exportFile, dir string
	var addresses []string
	cmd := &cobra.Command{
		Use: "verify", Short: "Prove that the audit log is whole", Args: cobra.NoArgs,
		Long: "Walk over the audit log and check every record, the chain that links them and the tree over them. The first bad record\n" +
			"is named, and so is the first one in which two nodes differ. Exit status: 0 whole, 2 not.\n\n" +
			"Without -export and -dir the nodes of the running cluster are asked, all of them, or those that -address names.\n" +
			"A chain alone can't show that its tail was cut: keep the head that is printed, outside the cluster, and compare.",
		Example: "  conclave audit verify\n  conclave audit verify -address=https://node1:8200 -address=https://node2:8200\n" +
			"  conclave audit verify -export=audit.jsonl\n  conclave audit verify -dir=/var/lib/conclave",
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case exportFile != "" && dir != "":
				return client.Usagef("-export and -dir are two things: give one")
			case exportFile != "":
				return verifyExport(s, exportFile)
			case dir != "":
				return verifyDir(cmd.Context(), s, dir)
			}
			return verifyNodes(cmd.Context(), s, addresses)
		},
	}
	cmd.Flags().StringVar(&exportFile, "export", "", "check this `file`, which `audit export` made; - is standard input")
	cmd.Flags().StringVar(&dir, "dir", "", "check the log in a node's data `directory`")
	cmd.Flags().StringArrayVar(&addresses, "address", nil, "`URL` of a node to ask; may be repeated")
	return cmd
}

func stateFinding(state *log.State, first, records uint64, fault string) finding {
	root := state.Root()
	return finding{Whole: fault == "", Fault: fault, Records: records, First: first, Epoch: state.Epoch,
		Head: hex.EncodeToString(state.Head[:]), Root: hex.EncodeToString(root[:])}
}

func (f *finding) print(s *client.Session, what string) error {
	err := s.Print(f, func(w io.Writer) {
		client.WriteTable(w, []string{"Key", "Value"}, [][]string{{"Log", what}, {"First Record", strconv.FormatUint(f.First, 10)},
			{"Records", strconv.FormatUint(f.Records, 10)}, {"Epoch", strconv.FormatUint(f.Epoch, 10)}, {"Head", f.Head}, {"Tree Root", f.Root}})
		if f.Whole {
			fmt.Fprintln(w, "\nThe log is whole. Whether its tail was cut shows only against a head that was kept elsewhere.")
		}
	})
	if err == nil && !f.Whole {
		err = client.Remotef("the audit log is NOT whole: %s", f.Fault)
	}
	return err
}

func verifyExport(s *client.Session, file string) error {
	in := s.In
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return client.Usagef("%w", err)
		}
		defer f.Close()
		in = f
	}
	report, err := log.VerifyExport(in, nil)
	fault := ""
	if wrong, ok := errors.AsType[*log.ExportFault](err); ok {
		fault = wrong.Error()
	} else if err != nil {
		return client.Usagef("read the export: %w", err)
	}
	found := stateFinding(&report.State, report.First, report.Records, fault)
	return found.print(s, file)
}

// segments is the directory with the log's files: dir itself, or where a node whose data directory it is keeps them. A
// node that has restored a snapshot has begun a new directory, with a higher number, and removes the old one.
func segments(dir string) (string, error) {
	for _, pattern := range []string{".", "*", filepath.Join("audit", "*")} {
		found, err := filepath.Glob(filepath.Join(dir, pattern, "seg-*.log"))
		if err != nil {
			return "", client.Usagef("%w", err)
		}
		if len(found) > 0 {
			return filepath.Dir(slices.Max(found)), nil
		}
	}
	return "", client.Usagef("%s holds no audit log", dir)
}

func verifyDir(ctx context.Context, s *client.Session, dir string) error {
	dir, err := segments(dir)
	if err != nil {
		return err
	}
	report, err := log.VerifyDir(ctx, dir, log.VerifyOptions{})
	if err != nil {
		return client.Usagef("read the log: %w", err)
	}
	fault := ""
	if report.Fault != nil {
		fault = report.Fault.Error()
	} else if report.Records == 0 {
		return client.Usagef("%s holds no audit log", dir)
	}
	found := stateFinding(&report.State, report.From.Seq, report.Records, fault)
	return found.print(s, dir)
}

// sources are the nodes that are named, or all members of the cluster.
func sources(ctx context.Context, s *client.Session, addresses []string) ([]source, error) {
	if len(addresses) == 0 {
		c, err := s.Client()
		if err != nil {
			return nil, err
		}
		if addresses, err = memberAddresses(ctx, c); err != nil {
			return nil, err
		}
		if len(addresses) == 0 {
			addresses = []string{c.Address()}
		}
	}
	list := make([]source, len(addresses))
	for i, address := range addresses {
		c, err := s.ClientAt(address)
		if err != nil {
			return nil, err
		}
		list[i] = nodeSource(c)
	}
	return list, nil
}

// memberAddresses are those of all members. One that has just started is waited for a moment; one that can't be asked is an
// error: what is said of the cluster's logs is said of all of them.
func memberAddresses(ctx context.Context, c *api.Client) ([]string, error) {
	for attempt := 1; ; attempt++ {
		members, _, err := operator.Members(ctx, c)
		if err != nil {
			return nil, err
		}
		var addresses, unknown []string
		for _, m := range members {
			if m.APIAddress == "" {
				unknown = append(unknown, m.NodeID)
				continue
			}
			addresses = append(addresses, m.APIAddress)
		}
		if len(unknown) == 0 {
			return addresses, nil
		}
		if attempt == addressAttempts {
			return nil, client.Remotef("nobody knows at which address %s can be asked: start it, remove it from the cluster, or give an -address for each node whose log is to be walked",
				strings.Join(unknown, ", "))
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(addressPause):
		}
	}
}

// The time in which a node that has started is known again.
const (
	addressAttempts = 20
	addressPause    = 250 * time.Millisecond
)

func verifyNodes(ctx context.Context, s *client.Session, addresses []string) error {
	nodes, err := sources(ctx, s, addresses)
	if err != nil {
		return err
	}
	found, err := compare(ctx, nodes)
	if err != nil {
		return err
	}
	err = s.Print(found, func(w io.Writer) {
		rows := make([][]string, len(found.Nodes))
		for i, n := range found.Nodes {
			verdict := "whole"
			if n.Fault != "" {
				verdict = "NOT WHOLE"
			}
			rows[i] = []string{n.Node, strconv.FormatUint(n.First, 10), strconv.FormatUint(n.Records, 10), strconv.FormatUint(n.Epoch, 10), n.Head, verdict}
		}
		client.WriteTable(w, []string{"Node", "First", "Records", "Epoch", "Head", "Verdict"}, rows)
		if found.Whole {
			fmt.Fprintf(w, "\nThe logs are whole and agree over all %d records that the nodes have in common.\n"+
				"Keep a head outside the cluster: a tail that all nodes lost shows only against it.\n", found.Records)
		}
	})
	if err == nil && !found.Whole {
		err = client.Remotef("the audit log is NOT whole: %s", found.Fault)
	}
	return err
}

func export(s *client.Session) *cobra.Command {
	return &cobra.Command{
		Use: "export FILE", Short: "Write a node's audit log to a file that can be checked without any key", Args: cobra.ExactArgs(1),
		Long: "Write a node's audit log to a new file, readable and checkable without any key (`conclave audit verify -export=FILE`). What is\n" +
			"written is verified on the way. The file shows who asked for what, values are hashed: it has mode 0600.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := s.Client()
			if err != nil {
				return err
			}
			return exportTo(cmd.Context(), s, nodeSource(c), args[0])
		},
	}
}

func exportTo(ctx context.Context, s *client.Session, node source, file string) (err error) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return client.Usagef("%w", err)
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(file)
		}
	}()
	w, err := walk(ctx, node, f)
	if err != nil {
		return err
	}
	if w.Fault != "" {
		return client.Remotef("the audit log is NOT whole: %s: %s", node.name, w.Fault)
	}
	state, err := w.state.AppendBinary(nil)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(f, "{\"end\":\"%s\",\"root\":\"%s\"}\n", base64.StdEncoding.EncodeToString(state), w.Root); err != nil {
		return client.Usagef("write the export: %w", err)
	}
	return s.Done("Success! Wrote %d records to %s. Head: %s", w.Records, file, w.Head)
}
