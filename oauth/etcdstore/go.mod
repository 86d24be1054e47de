module github.com/ycauth/ycauth-go/oauth/etcdstore

go 1.25.0

require (
	github.com/ycauth/ycauth-go v0.1.0
	go.etcd.io/etcd/api/v3 v3.6.14
	go.etcd.io/etcd/client/v3 v3.6.14
	go.uber.org/goleak v1.3.0
	go.uber.org/zap v1.27.0
	google.golang.org/grpc v1.82.1
)
