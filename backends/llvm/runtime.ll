; graphc thread pool
;
; One region runs at a time: parallel_for opens it, hands out its chunks, works on them itself, closes it, and waits for
; the workers that are inside. A worker is a thread that has called @worker. Between regions it spins, then parks.
;
; @state holds all that caller and workers must agree on, in one 32-bit word, which is also what a worker parks on:
;
;     bits 12..31  generation, one higher for each region
;     bit  11      open
;     bits 0..10   workers inside
;
; A worker enters by a compare-and-swap of the whole word, which fails unless a region is open at that instant; from
; then on the caller cannot finish before the worker has left. So what a worker reads after entering belongs to the
; region that is open, however late it comes, and it touches nothing of a region that is over. The generation is no part
; of that argument: it only keeps a worker from entering again what it has just finished.
;
; A region's chunks are dealt out in ranges, one for each thread, which works through its own from the front and then helps
; with those of the others. So a thread has the same chunks each time, as long as all come on time: what it has read or
; written of them before, in another region even, is still in the caches of its core.
;
; @@...@@ stand for what differs by machine; runtime.py fills them in, and adds the definitions of @park, @wake and
; @yield for the operating system.

%Region = type { ptr, ptr, i64, i64 }                   ; body, context, number of chunks, of ranges

; Each variable that is written often has 128 bytes to itself: CPUs fetch cache lines of 64 bytes in pairs.
%Next = type { i64, [120 x i8] }
@state = internal global i32 0, align 128
@next = internal global [16 x %Next] zeroinitializer, align 128    ; of each range the chunk to be handed out next
@region = internal global %Region zeroinitializer, align 128
@sleepers = internal global i32 0, align 128            ; workers parked or about to be
@busy = internal global i32 0, align 128                ; 1 while a caller owns the pool
@helpers = internal global i32 0, align 128             ; workers wanted: 0 makes every region serial
@started = internal global i32 0                        ; 0 until the workers have been asked for; guarded by @busy
@patience = internal global i32 1000                    ; turns to spin before parking
@clock = internal global ptr null                       ; what a profile records the workers' parts by; see kernel_clock.py
@caller = internal global i64 0                         ; the thread whose region is open, as a profile knows it

declare void @start_workers()

; Run body(context, chunk) for each chunk in [0, chunks), in any order and on any thread of the pool; returns when all
; are done. Serial if there is nothing to share, or if the pool is taken: by another thread, or by the very region that
; this call is made from.
define void @parallel_for(ptr %body, ptr %context, i64 %chunks) nounwind {
entry:
  %many = icmp sgt i64 %chunks, 1
  br i1 %many, label %ask, label %serial
ask:
  %helpers = load atomic i32, ptr @helpers monotonic, align 4
  %alone = icmp eq i32 %helpers, 0
  br i1 %alone, label %serial, label %claim
claim:
  %claimed = cmpxchg ptr @busy, i32 0, i32 1 acquire monotonic
  %ours = extractvalue { i32, i1 } %claimed, 1
  br i1 %ours, label %claimed.pool, label %serial
claimed.pool:
  %started = load i32, ptr @started
  %ready = icmp ne i32 %started, 0
  br i1 %ready, label %open, label %start
start:
  store i32 1, ptr @started
  call void @start_workers()
  br label %open
open:
  ; The pool was closed and empty, so nobody reads these fields now.
  store ptr %body, ptr @region
  store ptr %context, ptr getelementptr (%Region, ptr @region, i64 0, i32 1)
  store i64 %chunks, ptr getelementptr (%Region, ptr @region, i64 0, i32 2)
  ; More threads than there are counters share them.
  %threads = add i32 %helpers, 1
  %counters = call i32 @llvm.umin.i32(i32 %threads, i32 16)
  %counters.64 = zext i32 %counters to i64
  %ranges = call i64 @llvm.umin.i64(i64 %counters.64, i64 %chunks)
  store i64 %ranges, ptr getelementptr (%Region, ptr @region, i64 0, i32 3)
  br label %deal
deal:
  %range = phi i64 [ 0, %open ], [ %range.next, %deal ]
  %counter = getelementptr %Next, ptr @next, i64 %range
  %first = call i64 @range_start(i64 %range, i64 %ranges, i64 %chunks)
  store atomic i64 %first, ptr %counter monotonic, align 8
  %range.next = add i64 %range, 1
  %dealt = icmp eq i64 %range.next, %ranges
  br i1 %dealt, label %share, label %deal
share:
  store atomic i64 1, ptr @next monotonic, align 8        ; chunk 0 is the caller's
  %clock = load atomic ptr, ptr @clock acquire, align 8
  %profiled = icmp ne ptr %clock, null
  br i1 %profiled, label %name, label %begin
name:
  %thread.place = getelementptr ptr, ptr %clock, i64 3
  %thread = load ptr, ptr %thread.place
  %ident = call i64 %thread()
  store i64 %ident, ptr @caller
  br label %begin
begin:
  %before = atomicrmw add ptr @state, i32 6144 seq_cst    ; next generation, open
  ; Either this load sees a worker that is about to park, or that worker sees the new state and does not park: each
  ; side writes its own word before it reads the other's, in sequentially consistent order.
  %asleep = load atomic i32, ptr @sleepers seq_cst, align 4
  %rouse = icmp ne i32 %asleep, 0
  br i1 %rouse, label %wake, label %work
wake:
  %others = sub i64 %chunks, 1
  %few = call i64 @llvm.umin.i64(i64 %others, i64 2048)
  %count = trunc i64 %few to i32
  call void @wake(i32 %count)
  br label %work
work:
  call void %body(ptr %context, i64 0)
  call void @run_chunks(ptr %body, ptr %context, i64 %chunks, i64 %ranges, i64 0)
  %last = atomicrmw sub ptr @state, i32 2048 acq_rel      ; closed: nobody enters any more
  %inside = and i32 %last, 2047
  %empty = icmp eq i32 %inside, 0
  br i1 %empty, label %leave, label %wait
wait:
  %turn = phi i32 [ 0, %work ], [ %turn.next, %wait.pause ], [ %turn, %wait.yield ]
  %now = load atomic i32, ptr @state acquire, align 4
  %left = and i32 %now, 2047
  %done = icmp eq i32 %left, 0
  br i1 %done, label %leave, label %wait.more
wait.more:
  ; A worker that was taken off its CPU may need ours to finish.
  %long = icmp ugt i32 %turn, 2000
  br i1 %long, label %wait.yield, label %wait.pause
wait.pause:
  call void @pause()
  %turn.next = add i32 %turn, 1
  br label %wait
wait.yield:
  call void @yield()
  br label %wait
leave:
  store atomic i32 0, ptr @busy release, align 4
  ret void

serial:
  br label %each
each:
  %i = phi i64 [ 0, %serial ], [ %i.next, %each.body ]
  %more = icmp slt i64 %i, %chunks
  br i1 %more, label %each.body, label %out
each.body:
  call void %body(ptr %context, i64 %i)
  %i.next = add i64 %i, 1
  br label %each
out:
  ret void
}

; The first chunk of a range; that of the one behind the last is the number of chunks.
define internal i64 @range_start(i64 %range, i64 %ranges, i64 %chunks) alwaysinline nounwind {
  %part = mul i64 %range, %chunks
  %start = udiv i64 %part, %ranges
  ret i64 %start
}

; Run the chunks of the thread's own range, then those that are left of the others.
define internal void @run_chunks(ptr %body, ptr %context, i64 %chunks, i64 %ranges, i64 %own) nounwind {
entry:
  br label %visit
visit:
  %visited = phi i64 [ 0, %entry ], [ %visited.next, %empty ]
  %range = phi i64 [ %own, %entry ], [ %range.next, %empty ]
  %counter = getelementptr %Next, ptr @next, i64 %range
  %behind = add i64 %range, 1
  %stop = call i64 @range_start(i64 %behind, i64 %ranges, i64 %chunks)
  br label %look
look:
  %seen = load atomic i64, ptr %counter monotonic, align 8
  %left = icmp ult i64 %seen, %stop
  br i1 %left, label %take, label %empty
take:
  ; Which thread takes which chunk needs no order: @state orders the region's beginning and end.
  %chunk = atomicrmw add ptr %counter, i64 1 monotonic
  %any = icmp ult i64 %chunk, %stop
  br i1 %any, label %run, label %empty
run:
  call void %body(ptr %context, i64 %chunk)
  br label %look
empty:
  %visited.next = add i64 %visited, 1
  %last = icmp eq i64 %behind, %ranges
  %range.next = select i1 %last, i64 0, i64 %behind
  %all = icmp eq i64 %visited.next, %ranges
  br i1 %all, label %out, label %visit
out:
  ret void
}

; The life of a worker; returns once the word at %stop is not 0. Workers are numbered from 1 on.
define void @worker(ptr %stop, i64 %number) nounwind {
entry:
  br label %fresh
fresh:
  %last = phi i32 [ 1, %entry ], [ %generation, %ran ], [ %last, %awake ]    ; 1 is no generation
  br label %spin
spin:
  %turn = phi i32 [ 0, %fresh ], [ %turn, %enter ], [ %turn.next, %idle.pause ]
  %stopping = load atomic i32, ptr %stop monotonic, align 4
  %leave = icmp ne i32 %stopping, 0
  br i1 %leave, label %out, label %look
look:
  %seen = load atomic i32, ptr @state acquire, align 4
  %generation = and i32 %seen, -4096
  %new = icmp ne i32 %generation, %last
  %open.bit = and i32 %seen, 2048
  %open = icmp ne i32 %open.bit, 0
  %wanted = and i1 %new, %open
  br i1 %wanted, label %enter, label %idle
enter:
  %inside = add i32 %seen, 1
  %entered = cmpxchg ptr @state, i32 %seen, i32 %inside acquire monotonic
  %success = extractvalue { i32, i1 } %entered, 1
  br i1 %success, label %run, label %spin
run:
  %body = load ptr, ptr @region
  %context = load ptr, ptr getelementptr (%Region, ptr @region, i64 0, i32 1)
  %chunks = load i64, ptr getelementptr (%Region, ptr @region, i64 0, i32 2)
  %ranges = load i64, ptr getelementptr (%Region, ptr @region, i64 0, i32 3)
  %own = urem i64 %number, %ranges
  %clock = load atomic ptr, ptr @clock acquire, align 8
  %profiled = icmp ne ptr %clock, null
  br i1 %profiled, label %timed, label %plain
plain:
  call void @run_chunks(ptr %body, ptr %context, i64 %chunks, i64 %ranges, i64 %own)
  br label %ran
timed:
  %now = load ptr, ptr %clock
  %start = call i64 %now()
  call void @run_chunks(ptr %body, ptr %context, i64 %chunks, i64 %ranges, i64 %own)
  %record.place = getelementptr ptr, ptr %clock, i64 1
  %record = load ptr, ptr %record.place
  %caller = load i64, ptr @caller
  call void %record(ptr %clock, i64 %caller, i64 %start)
  br label %ran
ran:
  %was = atomicrmw sub ptr @state, i32 1 release
  br label %fresh
idle:
  %patience = load atomic i32, ptr @patience monotonic, align 4
  %tired = icmp uge i32 %turn, %patience
  br i1 %tired, label %doze, label %idle.pause
idle.pause:
  call void @pause()
  %turn.next = add i32 %turn, 1
  br label %spin
doze:
  %sleeping = atomicrmw add ptr @sleepers, i32 1 seq_cst
  %still = load atomic i32, ptr @state seq_cst, align 4
  %same = icmp eq i32 %still, %seen
  br i1 %same, label %sleep, label %awake
sleep:
  call void @park(i32 %seen)                              ; returns once @state is not %seen, or earlier
  br label %awake
awake:
  %woken = atomicrmw sub ptr @sleepers, i32 1 monotonic
  br label %fresh
out:
  ret void
}

; Make every worker look at its stop word: a new generation, so that none parks on the old one unaware.
define void @rouse_workers() nounwind {
  %before = atomicrmw add ptr @state, i32 4096 seq_cst
  call void @wake(i32 2048)
  ret void
}

define void @set_helpers(i32 %count) nounwind {
  store atomic i32 %count, ptr @helpers monotonic, align 4
  ret void
}

define void @set_clock(ptr %clock) nounwind {
  store atomic ptr %clock, ptr @clock release, align 8
  ret void
}

define void @set_patience(i32 %turns) nounwind {
  store atomic i32 %turns, ptr @patience monotonic, align 4
  ret void
}

; What a worker does per turn of its spinning, `turns` times: to measure how long that is.
define void @spin(i64 %turns) nounwind {
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %i.next, %loop ]
  call void @pause()
  %i.next = add i64 %i, 1
  %more = icmp ult i64 %i.next, %turns
  br i1 %more, label %loop, label %out
out:
  ret void
}

; As if no worker had ever been: for a process just forked, which has none of its parent's threads.
define void @reset() nounwind {
  store i32 0, ptr @state
  store i32 0, ptr @sleepers
  store i32 0, ptr @busy
  store i32 0, ptr @started
  call void @reset_parking()
  ret void
}

define internal void @pause() alwaysinline nounwind {
  @@pause@@
  ret void
}
