; Parking on Windows 8 and later: WaitOnAddress, which runtime.py looks up.

declare i32 @WaitOnAddress(ptr, ptr, i64, i32)
declare void @WakeByAddressAll(ptr)
declare i32 @SwitchToThread()

define internal void @park(i32 %seen) nounwind {
  %expected = alloca i32
  store i32 %seen, ptr %expected
  %r = call i32 @WaitOnAddress(ptr @state, ptr %expected, i64 4, i32 -1)
  ret void
}

define internal void @wake(i32 %count) nounwind {
  call void @WakeByAddressAll(ptr @state)
  ret void
}

define internal void @reset_parking() nounwind {
  ret void
}

define internal void @yield() nounwind {
  %r = call i32 @SwitchToThread()
  ret void
}
