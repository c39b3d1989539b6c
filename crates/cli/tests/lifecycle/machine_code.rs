//! Guests of a few instructions, for what no well-behaved guest does. They are entered by PVH: 32-bit
//! protected mode, flat segments, no stack.

const LOAD_ADDRESS: u32 = 0x10_0000;

/// Writes `R` and a line break to the serial port.
const SAY_R: [u8; 10] = [
    0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xb0, b'R', 0xee, // mov al, 'R'; out dx, al
    0xb0, b'\n', 0xee, // mov al, '\n'; out dx, al
];

/// Sleeps with interrupts off, whatever it is asked.
pub fn stubborn() -> Vec<u8> {
    let sleep = [0xfa, 0xf4, 0xeb, 0xfd]; // cli; again: hlt; jmp again
    [&SAY_R[..], &sleep].concat()
}

/// Jumps to where nothing answers: KVM cannot fetch an instruction there.
pub fn lost() -> Vec<u8> {
    let jump = [0xb8, 0x00, 0x00, 0x00, 0xd0, 0xff, 0xe0]; // mov eax, 0xd0000000; jmp eax
    [&SAY_R[..], &jump].concat()
}

/// Resets the machine as soon as it runs.
pub fn restless() -> Vec<u8> {
    let reset = [
        0x66, 0xba, 0xf9, 0x0c, // mov dx, 0xcf9
        0xb0, 0x06, 0xee, // mov al, 6; out dx, al
        0xf4, 0xeb, 0xfd, // again: hlt; jmp again
    ];
    [&SAY_R[..], &reset].concat()
}

/// Writes the first four bytes of the configuration of the device in slot 1, as a number in hexadecimal,
/// whenever they change. For a console these are columns and rows (VIRTIO 1.3 §5.3.4).
pub fn watcher() -> Vec<u8> {
    vec![
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0x31, 0xdb, // xor ebx, ebx
        0xa1, 0x00, 0x20, 0x00, 0xc0, // look: mov eax, [0xc0002000]
        0x39, 0xd8, // cmp eax, ebx
        0x74, 0xf7, // je look
        0x89, 0xc3, // mov ebx, eax
        0xb9, 0x08, 0x00, 0x00, 0x00, // mov ecx, 8
        0xc1, 0xc0, 0x04, // digit: rol eax, 4
        0x89, 0xc6, // mov esi, eax
        0x24, 0x0f, // and al, 15
        0x3c, 0x0a, // cmp al, 10
        0x72, 0x02, // jb small
        0x04, 0x27, // add al, 'a' - '0' - 10
        0x04, 0x30, // small: add al, '0'
        0xee, // out dx, al
        0x89, 0xf0, // mov eax, esi
        0xe2, 0xec, // loop digit
        0xb0, b'\n', 0xee, // mov al, '\n'; out dx, al
        0xeb, 0xd7, // jmp look
    ]
}

/// A guest in 64-bit mode, which reaches all addresses of 512 GiB. `body` begins with edx = 0x3f8, the serial port, and
/// needs no stack.
pub fn long_mode(body: &[u8]) -> Vec<u8> {
    const PAGE: usize = 4096;
    const ENTRY_64: u32 = LOAD_ADDRESS + 0x100;
    const GDT_POINTER: u32 = LOAD_ADDRESS + 0x200;
    const GDT: u32 = LOAD_ADDRESS + 0x210;
    const TABLES: u32 = LOAD_ADDRESS + PAGE as u32;
    const GIBIBYTES: u64 = 16;
    // Present, writable, for ring 3 as well; the last level has pages of 2 MiB.
    let table = |index: u64| u64::from(TABLES) + index * PAGE as u64 + 7;
    let word = |value: u32| value.to_le_bytes();
    let switch = [
        &[0xfa, 0x0f, 0x20, 0xe0, 0x83, 0xc8, 0x20, 0x0f, 0x22, 0xe0, 0xb8][..], // cli; cr4 |= PAE; mov eax, ...
        &word(TABLES),
        &[0x0f, 0x22, 0xd8, 0xb9, 0x80, 0x00, 0x00, 0xc0], // mov cr3, eax; mov ecx, EFER
        &[0x0f, 0x32, 0x0d, 0x00, 0x01, 0x00, 0x00, 0x0f, 0x30], // rdmsr; or eax, LME; wrmsr
        &[0x0f, 0x20, 0xc0, 0x0d, 0x01, 0x00, 0x00, 0x80, 0x0f, 0x22, 0xc0], // cr0 |= PG | PE
        &[0x0f, 0x01, 0x15],                               // lgdt [...]
        &word(GDT_POINTER),
        &[0xea], // jmp 0x10:...
        &word(ENTRY_64),
        &[0x10, 0x00],
    ]
    .concat();
    let segments = [
        0xb8, 0x18, 0x00, 0x00, 0x00, // mov eax, 0x18
        0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, // mov ds, eax; mov es, eax; mov ss, eax
        0xba, 0xf8, 0x03, 0x00, 0x00, // mov edx, 0x3f8
    ];
    let mut code = vec![0; 2 * PAGE + (1 + GIBIBYTES as usize) * PAGE];
    let mut put = |at: u32, bytes: &[u8]| {
        let start = (at - LOAD_ADDRESS) as usize;
        code[start..start + bytes.len()].copy_from_slice(bytes);
    };
    put(LOAD_ADDRESS, &switch);
    put(ENTRY_64, &[&segments[..], body].concat());
    put(GDT_POINTER, &[&31_u16.to_le_bytes()[..], &word(GDT)].concat());
    let descriptors = [0, 0, 0x00af_9b00_0000_ffff_u64, 0x00cf_9300_0000_ffff];
    put(GDT, &descriptors.map(u64::to_le_bytes).concat());
    put(TABLES, &table(1).to_le_bytes());
    for gibibyte in 0..GIBIBYTES {
        put(TABLES + PAGE as u32 + 8 * gibibyte as u32, &table(2 + gibibyte).to_le_bytes());
        for large in 0..512 {
            let at = TABLES + ((2 + gibibyte) as u32) * PAGE as u32 + 8 * large as u32;
            put(at, &((gibibyte << 30) + (large << 21) + 0x87).to_le_bytes());
        }
    }
    code
}

/// Reads the first bytes of the image in slot 2, whose place its configuration tells; overwrites the first one; reads
/// them again, and then the first of each page for ever.
pub fn image_reader() -> Vec<u8> {
    let line = [
        0x48, 0x89, 0xde, // mov rsi, rbx
        0xb9, 0x08, 0x00, 0x00, 0x00, // mov ecx, 8
        0xac, 0xee, // byte: lodsb; out dx, al
        0xe2, 0xfc, // loop byte
        0xb0, b'\n', 0xee, // mov al, '\n'; out dx, al
    ];
    let start = [0x48, 0xa1, 0x00, 0xa0, 0x00, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x48, 0x89, 0xc3]; // mov rax, [0xc000a000]; mov rbx, rax
    let write = [0xc6, 0x03, b'X']; // mov byte [rbx], 'X'
    let spin = [
        0x8a, 0x03, // again: mov al, [rbx]
        0x8a, 0x83, 0x00, 0x10, 0x00, 0x00, // mov al, [rbx + 4096]
        0xeb, 0xf6, // jmp again
    ];
    long_mode(&[&start[..], &line, &write, &line, &spin].concat())
}

/// Puts the available ring of the device in slot 2, an image, on the second page of the image itself, and rings for ever
/// (VIRTIO 1.3 §4.1.4.3, §4.1.5.2).
pub fn ringer() -> Vec<u8> {
    let start = [0x48, 0xa1, 0x00, 0xa0, 0x00, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x48, 0x89, 0xc3]; // mov rax, [0xc000a000]; mov rbx, rax
    let second_page = [0x48, 0x81, 0xc3, 0x00, 0x10, 0x00, 0x00]; // add rbx, 4096
    let common = [0xbf, 0x00, 0x80, 0x00, 0xc0]; // mov edi, 0xc0008000
    let status = |value| [0xc6, 0x47, 0x14, value]; // mov byte [rdi + 0x14], value
    let long = |at, value: u32| [&[0xc7, 0x47, at][..], &value.to_le_bytes()].concat(); // mov dword [rdi + at], value
    let features = [long(0x08, 1), long(0x0c, 1)].concat();
    let descriptors = [long(0x20, 0x80_0000), long(0x24, 0)].concat();
    let available = [0x89, 0x5f, 0x28, 0x48, 0xc1, 0xeb, 0x20, 0x89, 0x5f, 0x2c]; // mov [rdi + 0x28], ebx; shr rbx, 32; mov [rdi + 0x2c], ebx
    let used = [long(0x30, 0x90_0000), long(0x34, 0)].concat();
    let enable = [0x66, 0xc7, 0x47, 0x1c, 0x01, 0x00]; // mov word [rdi + 0x1c], 1
    let ring = [0x66, 0xc7, 0x87, 0x00, 0x30, 0x00, 0x00, 0x00, 0x00, 0xeb, 0xf5]; // mov word [rdi + 0x3000], 0; jmp back
    let parts: [&[u8]; 13] = [
        &start,
        &second_page,
        &common,
        &status(1),
        &status(3),
        &features,
        &status(11),
        &descriptors,
        &available,
        &used,
        &[&enable[..], &status(15)].concat(),
        &SAY_R,
        &ring,
    ];
    long_mode(&parts.concat())
}

/// Reads from the unplugged memory of the device in slot 2, whose place its configuration tells; writes there, reads again,
/// says `R` if all it saw were ones, and does it for ever.
pub fn void_reader() -> Vec<u8> {
    let start = [0x48, 0xa1, 0x10, 0xa0, 0x00, 0xc0, 0x00, 0x00, 0x00, 0x00, 0x48, 0x89, 0xc3]; // mov rax, [0xc000a010]; mov rbx, rax
    let compare = [0x48, 0x83, 0xf8, 0xff, 0x75, 0xfe]; // cmp rax, -1; here: jne here
    let read = [0x48, 0x8b, 0x03]; // mov rax, [rbx]
    let write = [0x48, 0xc7, 0x03, 0x07, 0x00, 0x00, 0x00]; // mov qword [rbx], 7
    let last = [0x48, 0x8b, 0x83, 0xf8, 0xff, 0xff, 0x03]; // mov rax, [rbx + 64 MiB - 8]
    let body = [&read[..], &compare, &write, &read, &compare, &last, &compare, &SAY_R].concat();
    let length = body.len() as u8 + 2;
    long_mode(&[&start[..], &body, &[0xeb, length.wrapping_neg()]].concat()) // jmp to the first read
}

/// An ELF image that says where it is entered by PVH, and that it may run at privilege level 3.
pub fn image(code: &[u8]) -> Vec<u8> {
    const HEADERS_END: u64 = 64 + 2 * 56;
    let note = |owner: &[u8; 4], owner_length: u32, kind: u32, value: u32| {
        let head: Vec<u8> = [owner_length, 4, kind].iter().flat_map(|word| word.to_le_bytes()).collect();
        let padding: &[u8] = if owner_length > 4 { &[0; 4] } else { &[] };
        [&head[..], owner, padding, &value.to_le_bytes()].concat()
    };
    let notes = [note(b"Xen\0", 4, 18, LOAD_ADDRESS), note(b"napa", 5, 1, 1)].concat();
    let mut image = vec![0; 64];
    image[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    image[16..24].copy_from_slice(&[2, 0, 62, 0, 1, 0, 0, 0]);
    image[24..32].copy_from_slice(&u64::from(LOAD_ADDRESS).to_le_bytes());
    image[32] = 64;
    image[52..58].copy_from_slice(&[64, 0, 56, 0, 2, 0]);
    let mut segment = |kind: u32, offset: u64, address: u64, size: usize| {
        image.extend([kind.to_le_bytes(), 5_u32.to_le_bytes()].concat());
        let size = size as u64;
        image.extend([offset, address, address, size, size, 4].iter().flat_map(|word| word.to_le_bytes()));
    };
    segment(1, HEADERS_END, LOAD_ADDRESS.into(), code.len());
    segment(4, HEADERS_END + code.len() as u64, 0, notes.len());
    image.extend_from_slice(code);
    image.extend(notes);
    image
}
