; Parking on Linux: a futex, private to the process. @@futex@@ is the system call's number.

declare i64 @syscall(i64, ...)
declare i32 @sched_yield()

define internal void @park(i32 %seen) nounwind {
  %r = call i64 (i64, ...) @syscall(i64 @@futex@@, ptr @state, i64 128, i32 %seen, ptr null)   ; FUTEX_WAIT_PRIVATE
  ret void
}

define internal void @wake(i32 %count) nounwind {
  %r = call i64 (i64, ...) @syscall(i64 @@futex@@, ptr @state, i64 129, i32 %count)            ; FUTEX_WAKE_PRIVATE
  ret void
}

define internal void @reset_parking() nounwind {
  ret void
}

define internal void @yield() nounwind {
  %r = call i32 @sched_yield()
  ret void
}
