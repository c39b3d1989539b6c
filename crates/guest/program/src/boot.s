# From the PVH entry point (32-bit protected mode, paging off) to Rust in ring 3.
#
# Ring 0 may be emulated by the host, at a microsecond an instruction and without SSE: it holds only what ring 3
# cannot do. Selectors: 0x10 ring 0 code, 0x18 ring 0 data, 0x2b ring 3 data, 0x33 ring 3 code, 0x40 the first TSS.

.section .note.napa, "a", @note
.balign 4
    .long 5, 4, 1                   # owner "napa", type 1: runs its code at CPL 3
    .asciz "napa"
    .balign 4
    .long 1

.section .note.Xen, "a", @note
.balign 4
    .long 4, 4, 18                  # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .long pvh_entry

.section .text.boot, "ax"
.code32
.global pvh_entry
pvh_entry:
    cli
    cld
    mov dx, 0x3f8                   # The first letter of the banner: it marks the moment the guest began to run.
    mov al, 'n'
    out dx, al
    mov eax, cr4
    or eax, 0x620                   # PAE, OSFXSR, OSXMMEXCPT
    mov cr4, eax
    mov eax, offset boot_pml4
    mov cr3, eax
    mov ecx, 0xc0000080             # EFER
    rdmsr
    or eax, 0x100                   # LME
    wrmsr
    mov eax, cr0
    and eax, 0x9ffffffb             # CD, NW and EM off
    or eax, 0x80010023              # PG, WP, NE, MP, PE
    mov cr0, eax
    lgdt [gdt_pointer]
    .byte 0xea                      # far jump into 64-bit code
    .long long_mode
    .word 0x10
.code64
long_mode:
    mov eax, 0x18
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    lea rsp, [boot_ring0_stack_top]
    lidt [idt_pointer]
    mov eax, 0x40
    ltr ax
    mov edi, ebx                    # hvm_start_info
    push 0x2b
    push offset boot_stack_top - 8  # The System V ABI wants rsp + 8 aligned to 16 at a function's entry.
    push 0x3002                     # IOPL 3, interrupts off
    push 0x33
    push offset guest_main
    iretq

# The other processors start here: copied to 0x8000, entered in real mode with cs = 0x800.
.balign 16
.code16
.global trampoline_start
trampoline_start:
    cli
    xor ax, ax
    mov ds, ax
    .byte 0x66, 0x0f, 0x01, 0x16    # lgdt with a 32-bit base
    .word 0x8000 + trampoline_gdt_pointer - trampoline_start
    mov eax, cr4
    or eax, 0x620
    mov cr4, eax
    mov eax, offset boot_pml4
    mov cr3, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x100
    wrmsr
    mov eax, cr0
    and eax, 0x9ffffffb
    or eax, 0x80010023
    mov cr0, eax
    .byte 0x66, 0xea                # far jump with a 32-bit offset
    .long processor_long_mode
    .word 0x10
.balign 4
trampoline_gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt
.global trampoline_end
trampoline_end:
.code64
processor_long_mode:
    mov eax, 0x18
    mov ds, eax
    mov es, eax
    mov ss, eax
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov rsp, [processor_ring0_stack]
    lgdt [gdt_pointer]
    lidt [idt_pointer]
    mov eax, [processor_tss_selector]
    ltr ax
    push 0x2b
    push [processor_stack]
    push 0x3002
    push 0x33
    push offset processor_main
    iretq

.section .data.boot, "aw"
# Every level carries the user bit. The first GiB is complete; paging.rs fills the other tables before it uses them.
.balign 4096
.global boot_pml4
boot_pml4:
    .quad boot_pdpt + 0x7
    .fill 511, 8, 0
.global boot_pdpt
boot_pdpt:
    .quad boot_page_directory + 0x7
    .quad low_page_directories + 0x7
    .quad low_page_directories + 0x1007
    .quad low_page_directories + 0x2007
    .fill 508, 8, 0
boot_page_directory:
.set frame, 0
.rept 512
    .quad frame + 0x87              # 2 MiB page, user, writable, present
.set frame, frame + 0x200000
.endr

.balign 16
.global gdt
gdt:
    .quad 0, 0
    .quad 0x00af9b000000ffff        # 0x10 ring 0 code, 64-bit
    .quad 0x00cf93000000ffff        # 0x18 ring 0 data
    .quad 0
    .quad 0x00cff3000000ffff        # 0x28 ring 3 data
    .quad 0x00affb000000ffff        # 0x30 ring 3 code, 64-bit
    .quad 0
.global gdt_tss_descriptors
gdt_tss_descriptors:
    .word 8296                      # limit: 104 bytes, 8,192 of I/O bitmap, one of ones
    .word boot_tss_base_0_15
    .byte boot_tss_base_16_23, 0x89, 0, boot_tss_base_24_31
    .quad 0
    .fill 63 * 2, 8, 0              # the other processors, written by smp.rs
gdt_end:
.balign 8
    .word 0, 0, 0
gdt_pointer:
    .word gdt_end - gdt - 1
    .quad gdt
.balign 8
    .word 0, 0, 0
idt_pointer:
    .word 4095
    .quad idt

.section .bss.boot, "aw", @nobits
.balign 4096
.global boot_ring0_stack
boot_ring0_stack:
    .skip 4096
boot_ring0_stack_top:
.global low_page_directories
low_page_directories:
    .skip 3 * 4096
.global idt
idt:
    .skip 4096
.global boot_tss
boot_tss:
    .skip 12288
.global panic_stack
panic_stack:
    .skip 16384
panic_stack_top:
.global processor_ring0_stack
processor_ring0_stack:
    .skip 8
.global processor_stack
processor_stack:
    .skip 8
.global processor_tss_selector
processor_tss_selector:
    .skip 8
