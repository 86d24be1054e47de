package main

import (
	"os"
	"unsafe"

	"golang.org/x/sys/windows"
)

// endTogether has Windows end the child, and what it starts from now on, when this program
// is ended: the job has one handle, which goes with the program. If that fails, the child
// outlives it.
func endTogether(child *os.Process) (release func()) {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return func() {}
	}
	info := windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION{
		BasicLimitInformation: windows.JOBOBJECT_BASIC_LIMIT_INFORMATION{LimitFlags: windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE},
	}
	_, err = windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation, uintptr(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)))
	if err == nil {
		var handle windows.Handle
		handle, err = windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE, false, uint32(child.Pid))
		if err == nil {
			err = windows.AssignProcessToJobObject(job, handle)
			_ = windows.CloseHandle(handle) // the job knows the process by itself
		}
	}
	if err != nil {
		_ = windows.CloseHandle(job) // it has no process
		return func() {}
	}
	return func() {
		// What the command left running goes on, as without this program.
		info.BasicLimitInformation.LimitFlags = 0
		_, err := windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation, uintptr(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info)))
		if err == nil {
			_ = windows.CloseHandle(job) // ends nothing
		}
	}
}
