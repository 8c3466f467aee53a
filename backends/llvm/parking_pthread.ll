; Parking on other POSIX systems: a mutex and a condition variable. The state is read again under the mutex, so a wake
; cannot fall between that look and the wait. 256 bytes are more than any system's mutex or condition variable.

@mutex = internal global [256 x i8] zeroinitializer, align 128
@condition = internal global [256 x i8] zeroinitializer, align 128

declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_cond_broadcast(ptr)
declare i32 @sched_yield()

define internal void @park(i32 %seen) nounwind {
entry:
  %l = call i32 @pthread_mutex_lock(ptr @mutex)
  %now = load atomic i32, ptr @state seq_cst, align 4
  %same = icmp eq i32 %now, %seen
  br i1 %same, label %sleep, label %out
sleep:
  %w = call i32 @pthread_cond_wait(ptr @condition, ptr @mutex)
  br label %out
out:
  %u = call i32 @pthread_mutex_unlock(ptr @mutex)
  ret void
}

define internal void @wake(i32 %count) nounwind {
  %l = call i32 @pthread_mutex_lock(ptr @mutex)
  %b = call i32 @pthread_cond_broadcast(ptr @condition)
  %u = call i32 @pthread_mutex_unlock(ptr @mutex)
  ret void
}

define internal void @reset_parking() nounwind {
  call void @llvm.memset.p0.i64(ptr @mutex, i8 0, i64 256, i1 false)
  call void @llvm.memset.p0.i64(ptr @condition, i8 0, i64 256, i1 false)
  %m = call i32 @pthread_mutex_init(ptr @mutex, ptr null)
  %c = call i32 @pthread_cond_init(ptr @condition, ptr null)
  ret void
}

define internal void @yield() nounwind {
  %r = call i32 @sched_yield()
  ret void
}
