// Package wire holds the messages that cluster nodes exchange, generated from cluster.proto. Only package cluster imports it.
package wire

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative cluster.proto
