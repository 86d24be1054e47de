// Package etcdstore keeps sessions in etcd.
package etcdstore
