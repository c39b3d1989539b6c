# What runs in ring 0 after boot: services for ring 3, interrupt counters, and the way out after an exception.
# All of it is SSE-free and short: the host may emulate it.

.section .text.boot, "ax"

# Services: INT3 from ring 3 (INT n and SYSCALL do not work on every host). rax = number, arguments in rdi and rsi;
# rax and rdx return values; rcx is lost.
.global service_entry
service_entry:
    jmp [service_table + rax * 8]
service_table:
    .quad service_halt, service_read_msr, service_write_msr, service_cpuid, service_stop, service_triple_fault

service_halt:                       # STI holds interrupts off for one instruction: none is lost between look and HLT.
    sti
    hlt
    cli
    iretq
service_read_msr:                   # edi = MSR; edx:eax = value
    mov ecx, edi
    rdmsr
    iretq
service_write_msr:                  # edi = MSR, rsi = value
    mov ecx, edi
    mov eax, esi
    mov rdx, rsi
    shr rdx, 32
    wrmsr
    iretq
service_cpuid:                      # edi = leaf, esi = subleaf, rdx = where the four registers go
    push rbx
    mov r8, rdx
    mov eax, edi
    mov ecx, esi
    cpuid
    mov [r8], eax
    mov [r8 + 4], ebx
    mov [r8 + 8], ecx
    mov [r8 + 12], edx
    pop rbx
    iretq
service_stop:
    cli
    hlt
    jmp service_stop
service_triple_fault:
    lidt [empty_idt_pointer]
    ud2

# Interrupts: count, tell the local APIC, return. 32 bytes each; interrupts.rs finds them by number.
.macro count_interrupt vector
    lock inc qword ptr [interrupt_counts + 8 * \vector]
.endm

.balign 32
.global interrupt_stubs_xapic
interrupt_stubs_xapic:
.set vector, 0x20
.rept 64
    .balign 32
    push rax
    count_interrupt vector
    mov eax, 0xfee000b0
    mov dword ptr [rax], 0
    pop rax
    iretq
.set vector, vector + 1
.endr

.balign 32
.global interrupt_stubs_x2apic
interrupt_stubs_x2apic:
.set vector, 0x20
.rept 64
    .balign 32
    push rax
    push rcx
    push rdx
    count_interrupt vector
    mov ecx, 0x80b
    xor eax, eax
    xor edx, edx
    wrmsr
    pop rdx
    pop rcx
    pop rax
    iretq
.set vector, vector + 1
.endr

# The stop request may be a level interrupt: it stays asserted until ring 3 has looked, so the interrupted code
# (always service_halt) goes on with interrupts off.
.balign 32
.global stop_stub_xapic
stop_stub_xapic:
    and qword ptr [rsp + 16], -0x201
    jmp interrupt_stubs_xapic + 32 * (0x21 - 0x20)
.balign 32
.global stop_stub_x2apic
stop_stub_x2apic:
    and qword ptr [rsp + 16], -0x201
    jmp interrupt_stubs_x2apic + 32 * (0x21 - 0x20)

.global spurious_stub
spurious_stub:
    iretq

# Exceptions: note what happened, go on in Rust at ring 3 on a stack of its own. A second one stops its processor.
.balign 16
.global exception_stubs
exception_stubs:
.set vector, 0
.rept 32
    .balign 16
.if (vector == 8) || (vector >= 10 && vector <= 14) || (vector == 17) || (vector == 21) || (vector == 29) || (vector == 30)
.else
    push 0
.endif
    push vector
    jmp exception_common
.set vector, vector + 1
.endr

exception_common:                   # vector, error code, rip, cs, rflags, rsp, ss
    lock bts dword ptr [exception_seen], 0
    jc service_stop
    pop rdi
    pop rsi
    pop rdx
    mov rcx, cr2
    pop rax
    and eax, 3
    mov r8d, eax                    # the ring it happened in
    lea rsp, [rsp - 16]
    mov qword ptr [rsp], offset exception_main
    mov qword ptr [rsp + 8], 0x33
    mov qword ptr [rsp + 16], 0x3002
    mov qword ptr [rsp + 24], offset panic_stack_top - 8
    mov qword ptr [rsp + 32], 0x2b
    iretq

.section .bss.boot, "aw", @nobits
.balign 16
empty_idt_pointer:
    .skip 16
exception_seen:
    .skip 8
.global interrupt_counts
interrupt_counts:
    .skip 256 * 8
