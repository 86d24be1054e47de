// Package iamgrpc serves package iamtest over gRPC: RefreshTokenService,
// OperationService and ApiEndpointService of Yandex Cloud, with the official stubs
// (module github.com/yandex-cloud/go-genproto) and the same tokens and
// operations as over REST.
//
// In a test:
//
//	iam := iamtest.Start(t)
//	face := iamgrpc.Start(t, iam)
//	conn, err := grpc.NewClient(face.Address, ...)
//
// It is a separate package so that tests without gRPC do not build it.
//
// # Faults
//
// Faults that iamtest.Server.Inject injects at EndpointList, EndpointRevoke,
// EndpointOperation and EndpointEndpoints also affect calls:
//
//   - a lost request, a lost response and a truncated body close the connection;
//   - a status, HTML and a redirect become the code of "HTTP to gRPC Status
//     Code Mapping" in the gRPC documentation, a Retry-After becomes a
//     google.rpc.RetryInfo;
//   - an oversized body is a message larger than clients of grpc-go accept, an
//     empty one a message without fields, unknown members are unknown fields;
//   - slow and repeated page token work as over REST, except that the
//     first page is never repeated;
//   - faults that are specific to JSON or DPoP have no effect.
//
// # Records
//
// iamtest.Server.Requests includes calls, with the full name of the method as
// Path, such as /yandex.cloud.iam.v1.RefreshTokenService/List, and the HTTP
// status that corresponds to the code of the answer.
package iamgrpc
