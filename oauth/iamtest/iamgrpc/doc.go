// Package iamgrpc is the gRPC face of package iamtest: RefreshTokenService,
// OperationService and ApiEndpointService of Yandex Cloud, on the official stubs
// (module github.com/yandex-cloud/go-genproto), over the same tokens and
// operations as the REST face.
//
// In a test:
//
//	iam := iamtest.Start(t)
//	face := iamgrpc.Start(t, iam)
//	conn, err := grpc.NewClient(face.Address, ...)
//
// It is a package of its own so that tests which need no gRPC do not build it.
//
// # Faults
//
// Faults that iamtest.Server.Inject makes happen at EndpointList, EndpointRevoke,
// EndpointOperation and EndpointEndpoints happen to calls as well:
//
//   - a lost request, a lost answer and a truncated body close the connection;
//   - a status, HTML and a redirect become the code that "HTTP to gRPC Status
//     Code Mapping" of the gRPC documentation gives, a Retry-After a
//     google.rpc.RetryInfo;
//   - an oversized body is a message larger than clients of grpc-go accept, an
//     empty one a message without fields, unknown members are unknown fields;
//   - slow and repeated page token are what they are over REST, but that the
//     first page is never a repeated one;
//   - those that only JSON or DPoP can have change nothing.
//
// # Records
//
// Calls are among iamtest.Server.Requests, with the full name of the method as
// Path, such as /yandex.cloud.iam.v1.RefreshTokenService/List, and the HTTP
// status that corresponds to the code of the answer.
package iamgrpc
