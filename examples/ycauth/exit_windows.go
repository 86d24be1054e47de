package main

import "syscall"

// errAddressInUse is the error of a port that another program listens on (WSAEADDRINUSE).
const errAddressInUse syscall.Errno = 10048

// passingErrnos are failures of connections that pass (Winsock error codes).
var passingErrnos = []syscall.Errno{
	10050, // WSAENETDOWN
	10051, // WSAENETUNREACH
	10052, // WSAENETRESET
	10053, // WSAECONNABORTED
	10054, // WSAECONNRESET
	10060, // WSAETIMEDOUT
	10061, // WSAECONNREFUSED
	10064, // WSAEHOSTDOWN
	10065, // WSAEHOSTUNREACH
}
