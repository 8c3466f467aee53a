; conversions of 16-bit floats, for CPUs without the instructions
;
; The functions that LLVM's code generator calls there by itself, under the names that compilers agree on. All round to
; nearest, ties to even; a NaN stays one, quiet, with its sign and the upper bits of its payload.

define float @__extendhfsf2(half %x) nounwind {
  %h = bitcast half %x to i16
  %bits = zext i16 %h to i32
  %sign.16 = and i32 %bits, 32768
  %sign = shl i32 %sign.16, 16
  %magnitude = and i32 %bits, 32767
  ; In place, the exponent is too small by 112: multiplying is exact, and right for subnormals too.
  %placed = shl i32 %magnitude, 13
  %small = bitcast i32 %placed to float
  %scaled = fmul float %small, 0x46F0000000000000            ; 2^112
  %finite = bitcast float %scaled to i32
  %infinite = or i32 %placed, 2139095040                    ; 0x7f800000
  %nan = icmp ugt i32 %magnitude, 31744
  %quiet = select i1 %nan, i32 4194304, i32 0
  %special = or i32 %infinite, %quiet
  %is.special = icmp uge i32 %magnitude, 31744              ; 0x7c00
  %value = select i1 %is.special, i32 %special, i32 %finite
  %result = or i32 %value, %sign
  %y = bitcast i32 %result to float
  ret float %y
}

define half @__truncsfhf2(float %x) nounwind {
  %bits = bitcast float %x to i32
  %high = lshr i32 %bits, 16
  %sign = and i32 %high, 32768
  %magnitude = and i32 %bits, 2147483647

  ; Normal: the exponent's bias goes from 127 to 15, and 13 bits of the significand are rounded away.
  %kept = lshr i32 %magnitude, 13
  %odd = and i32 %kept, 1
  %rebiased = add i32 %magnitude, -939520001                ; -112 * 2^23 + 2^12 - 1
  %rounded = add i32 %rebiased, %odd
  %normal = lshr i32 %rounded, 13

  ; Below 2^-14: adding 1/2, whose last place is the step of the subnormals, 2^-24, rounds to a multiple of it.
  %positive = bitcast i32 %magnitude to float
  %sum = fadd float %positive, 0.5
  %sum.bits = bitcast float %sum to i32
  %subnormal = sub i32 %sum.bits, 1056964608                ; the bits of 1/2
  %is.subnormal = icmp ult i32 %magnitude, 947912704        ; the bits of 2^-14
  %finite = select i1 %is.subnormal, i32 %subnormal, i32 %normal

  %overflows = icmp uge i32 %magnitude, 1199566848          ; the bits of 65520, halfway to what would be 2^16
  %bounded = select i1 %overflows, i32 31744, i32 %finite
  %payload = and i32 %kept, 1023
  %nan = or i32 %payload, 32256                             ; 0x7e00
  %is.nan = icmp ugt i32 %magnitude, 2139095040
  %value = select i1 %is.nan, i32 %nan, i32 %bounded
  %result = or i32 %value, %sign
  %short = trunc i32 %result to i16
  %y = bitcast i16 %short to half
  ret half %y
}

define bfloat @__truncsfbf2(float %x) nounwind {
  %bits = bitcast float %x to i32
  %kept = lshr i32 %bits, 16
  %odd = and i32 %kept, 1
  %half.step = add i32 %odd, 32767
  %rounded = add i32 %bits, %half.step
  %number = lshr i32 %rounded, 16
  %nan = or i32 %kept, 64
  %is.nan = fcmp uno float %x, 0.0
  %result = select i1 %is.nan, i32 %nan, i32 %number
  %short = trunc i32 %result to i16
  %y = bitcast i16 %short to bfloat
  ret bfloat %y
}

define half @__truncdfhf2(double %x) nounwind {
  %f = call float @to_odd(double %x)
  %y = call half @__truncsfhf2(float %f)
  ret half %y
}

define bfloat @__truncdfbf2(double %x) nounwind {
  %f = call float @to_odd(double %x)
  %y = call bfloat @__truncsfbf2(float %f)
  ret bfloat %y
}

; To single precision, an inexact result to the neighbour whose last bit is 1: rounding that again is as good as
; rounding once (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to
; odd", 2008).
define internal float @to_odd(double %x) nounwind {
  %nearest = fptrunc double %x to float
  %back = fpext float %nearest to double
  %bits = bitcast float %nearest to i32
  %exact = fcmp ueq double %back, %x
  %last = and i32 %bits, 1
  %odd = icmp ne i32 %last, 0
  %done = or i1 %exact, %odd
  %x.magnitude = call double @llvm.fabs.f64(double %x)
  %magnitude = call double @llvm.fabs.f64(double %back)
  %too.small = fcmp olt double %magnitude, %x.magnitude
  %step = select i1 %too.small, i32 1, i32 -1
  %neighbour = add i32 %bits, %step
  %chosen = select i1 %done, i32 %bits, i32 %neighbour
  %y = bitcast i32 %chosen to float
  ret float %y
}

declare double @llvm.fabs.f64(double)
