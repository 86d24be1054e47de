package pivtest

import "context"

// request is a whole command on its way to its handler.
type request struct {
	command
	pinFresh bool // the command before was a VERIFY that succeeded
}

// handler answers one instruction. It is called with Card.mu held.
type handler func(c *Card, ctx context.Context, r request) ([]byte, StatusWord)

// dispatch runs one whole command in the selected application.
func (c *Card) dispatch(ctx context.Context, r request) ([]byte, StatusWord) {
	if r.ins != InsAuthenticate { // whose second step needs what the first one left
		c.session.auth = authentication{}
	}
	if r.ins == InsSelect {
		return c.selectApplication(r)
	}
	switch c.session.app {
	case appPIV:
		if h, ok := c.pivHandler(r.ins); ok {
			return h(c, ctx, r)
		}
	case appOTP:
		return c.otpCommand(r)
	case appManagement:
		return c.managementCommand(r)
	}
	return nil, UnknownInstruction
}

// pivHandler returns the handler of an instruction the firmware has.
func (c *Card) pivHandler(ins byte) (handler, bool) {
	switch {
	case ins == InsGetSerial && !c.firmware.hasPIVSerial(),
		ins == InsGetMetadata && !c.firmware.hasMetadata(),
		ins == InsAttest && !c.firmware.hasAttestation(),
		ins == InsMoveKey && !c.firmware.hasMoveKey():
		return nil, false
	}
	h, ok := pivHandlers[ins]
	return h, ok
}

var pivHandlers = map[byte]handler{
	InsVerify:          (*Card).verify,
	InsChangeReference: (*Card).changeReference,
	InsResetRetry:      (*Card).resetRetry,
	InsSetPINRetries:   (*Card).setRetries,
	InsReset:           (*Card).reset,
	InsAuthenticate:    (*Card).authenticate,
	InsSetManagement:   (*Card).setManagementKey,
	InsGenerate:        (*Card).generate,
	InsImportKey:       (*Card).importKey,
	InsMoveKey:         (*Card).moveKey,
	InsGetMetadata:     (*Card).metadata,
	InsAttest:          (*Card).attest,
	InsGetData:         (*Card).getData,
	InsPutData:         (*Card).putData,
	InsGetVersion:      (*Card).getVersion,
	InsGetSerial:       (*Card).getSerial,
}
