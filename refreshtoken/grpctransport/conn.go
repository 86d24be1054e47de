package grpctransport

import (
	"context"
	"strings"

	"google.golang.org/grpc"
)

// operationService is the service whose calls go to the operation endpoint.
const operationService = "/yandex.cloud.operation.OperationService/"

// Join combines two connections: calls of OperationService go to operation,
// all others to iam. The caller must close both.
func Join(iam, operation grpc.ClientConnInterface) grpc.ClientConnInterface {
	return &joined{iam, operation}
}

type joined struct{ iam, operation grpc.ClientConnInterface }

func (j *joined) of(method string) grpc.ClientConnInterface {
	if strings.HasPrefix(method, operationService) {
		return j.operation
	}
	return j.iam
}

// Invoke implements grpc.ClientConnInterface.
func (j *joined) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return j.of(method).Invoke(ctx, method, args, reply, opts...)
}

// NewStream implements grpc.ClientConnInterface.
func (j *joined) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return j.of(method).NewStream(ctx, desc, method, opts...)
}
