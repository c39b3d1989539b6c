//! What each request does.

use super::*;

const READ: u32 = abi::VIRTIO_BLK_T_IN;
const WRITE_OUT: u32 = abi::VIRTIO_BLK_T_OUT;
const FLUSH: u32 = abi::VIRTIO_BLK_T_FLUSH;
const DISCARD: u32 = abi::VIRTIO_BLK_T_DISCARD;
const WRITE_ZEROES: u32 = abi::VIRTIO_BLK_T_WRITE_ZEROES;
const OK: u8 = Status::Ok as u8;
const IO_ERROR: u8 = Status::IoError as u8;
const UNSUPPORTED: u8 = Status::Unsupported as u8;

const BOTH: [CacheMode; 2] = [CacheMode::None, CacheMode::Writeback];

#[test]
fn what_was_written_is_read_back_and_is_in_the_image() {
    for cache in BOTH {
        let (_folder, path) = image(1 << 20);
        let mut rig = Rig::new(&config(&path, cache), ALL);
        let bytes = pattern(1, 12288);
        rig.fill(DATA, &bytes);
        // In one piece, and in pieces that are not one after the other in memory.
        let spread = [(DATA + 8192, 4096), (DATA, 4096), (DATA + 4096, 4096)];
        assert_eq!(rig.ask(WRITE_OUT, 8, &[(DATA, 12288)]), (OK, 1));
        assert_eq!(rig.ask(WRITE_OUT, 64, &spread), (OK, 1));
        assert_eq!(rig.ask(FLUSH, 0, &[]), (OK, 1));
        assert_eq!(contents(&path, 4096, 12288), bytes, "{cache:?}");
        let turned = [&bytes[8192..], &bytes[..8192]].concat();
        assert_eq!(contents(&path, 64 * 512, 12288), turned, "{cache:?}");

        let target = DATA + 0x10_0000;
        assert_eq!(rig.ask(READ, 8, &[(target, 12288)]), (OK, 12289));
        assert_eq!(rig.look(target, 12288), bytes, "{cache:?}");
        rig.fill(target, &[0xff; 12288]);
        let target_pieces = [(target + 8192, 4096), (target, 4096), (target + 4096, 4096)];
        assert_eq!(rig.ask(READ, 64, &target_pieces), (OK, 12289));
        assert_eq!(rig.look(target, 12288), bytes, "{cache:?}");
    }
}

#[test]
fn memory_that_direct_io_refuses_takes_the_detour() {
    let (_folder, path) = image(1 << 20);
    let mut rig = Rig::new(&config(&path, CacheMode::None), ALL);
    // Longer than the bounce buffer, at an odd address, in odd pieces.
    let length = 200 * 512;
    let bytes = pattern(7, length);
    rig.fill(DATA + 1, &bytes);
    assert_eq!(rig.ask(WRITE_OUT, 3, &[(DATA + 1, length as u32)]), (OK, 1));
    assert_eq!(rig.ask(FLUSH, 0, &[]), (OK, 1));
    assert_eq!(contents(&path, 3 * 512, length), bytes);

    let target = DATA + 0x10_0003;
    let pieces = [(target, 77), (target + 77, 100_000), (target + 100_077, length as u32 - 100_077)];
    assert_eq!(rig.ask(READ, 3, &pieces), (OK, length as u32 + 1));
    assert_eq!(rig.look(target, length), bytes);
}

#[test]
fn detours_wait_for_each_other_and_all_arrive() {
    let (_folder, path) = image(1 << 20);
    std::fs::write(&path, pattern(9, 1 << 20)).unwrap();
    let mut rig = Rig::new(&config(&path, CacheMode::None), ALL);
    let started: Vec<_> = (0..40)
        .map(|index| {
            let odd = index % 4;
            let target = DATA + 8192 * index + odd;
            (target, rig.start(&Ask { kind: READ, sector: 8 * index, data: &[(target, 4096)] }))
        })
        .collect();
    rig.drivers[0].kick();
    for _ in &started {
        rig.drivers[0].wait_used();
    }
    for (index, (target, (_, status))) in started.into_iter().enumerate() {
        assert_eq!(rig.ram().read_obj::<u8>(status).unwrap(), OK);
        assert_eq!(rig.look(target, 4096), contents(&path, 4096 * index as u64, 4096), "request {index}");
    }
}

#[test]
fn a_discarded_range_reads_as_zeros() {
    for cache in BOTH {
        let (_folder, path) = image(1 << 20);
        std::fs::write(&path, vec![0xaa; 1 << 20]).unwrap();
        let mut rig = Rig::new(&config(&path, cache), ALL);
        assert_eq!(rig.ask_range(DISCARD, 8, 16, 0), (OK, 1));
        assert_eq!(rig.ask(READ, 0, &[(DATA, 32 * 512)]).0, OK);
        let data = rig.look(DATA, 32 * 512);
        assert!(data[4096..12288].iter().all(|byte| *byte == 0), "{cache:?}");
        assert!(data[..4096].iter().chain(&data[12288..]).all(|byte| *byte == 0xaa), "{cache:?}");
        assert_eq!(rig.block.disk.image.capacity, path.metadata().unwrap().len());
    }
}

#[test]
fn zeroes_are_written_with_every_means_that_a_file_system_may_have() {
    let lacking: [&[operation::Allocation]; 3] =
        [&[], &[operation::Allocation::Punch], &[operation::Allocation::Punch, operation::Allocation::Zero]];
    for cache in BOTH {
        for lacks in lacking {
            for (unmap, features) in [(0, ALL), (1, ALL), (1, 0)] {
                let (_folder, path) = image(1 << 20);
                std::fs::write(&path, vec![0xaa; 1 << 20]).unwrap();
                let mut rig = Rig::new(&config(&path, cache), features);
                lacks.iter().for_each(|allocation| rig.block.disk.note_lack(*allocation));
                assert_eq!(rig.ask_range(WRITE_ZEROES, 1, 500, unmap), (OK, 1));
                assert_eq!(rig.ask(FLUSH, 0, &[]), (OK, 1));
                let mut expected = vec![0xaa; 1 << 20];
                expected[512..501 * 512].fill(0);
                let found = contents(&path, 0, 1 << 20);
                assert!(found == expected, "{cache:?}, without {lacks:?}, unmap {unmap}");
            }
        }
    }
}

#[test]
fn a_discard_without_the_means_is_a_hint_that_nobody_took() {
    let (_folder, path) = image(1 << 20);
    std::fs::write(&path, vec![0xaa; 1 << 20]).unwrap();
    let mut rig = Rig::new(&config(&path, CacheMode::Writeback), ALL);
    rig.block.disk.note_lack(operation::Allocation::Punch);
    assert_eq!(rig.ask_range(DISCARD, 0, 8, 0), (OK, 1));
    assert_eq!(contents(&path, 0, 4096), vec![0xaa; 4096]);
}

#[test]
fn requests_that_cannot_be_carried_out_fail_alone() {
    let (_folder, path) = image(1 << 20);
    let mut rig = Rig::new(&config(&path, CacheMode::None), ALL);
    assert_eq!(rig.ask(READ, 2048, &[(DATA, 512)]), (IO_ERROR, 1));
    assert_eq!(rig.ask(WRITE_OUT, 2047, &[(DATA, 1024)]), (IO_ERROR, 1));
    assert_eq!(rig.ask(READ, u64::MAX, &[(DATA, 512)]), (IO_ERROR, 1));
    assert_eq!(rig.ask(READ, 0, &[(DATA, 100)]), (IO_ERROR, 1));
    assert_eq!(rig.ask(99, 0, &[]), (UNSUPPORTED, 1));
    assert_eq!(rig.ask_range(DISCARD, 2048, 1, 0), (IO_ERROR, 1));
    assert_eq!(rig.ask_range(WRITE_ZEROES, 0, 1, 2), (UNSUPPORTED, 1));
    assert_eq!(rig.ask(READ, 0, &[(DATA, 512)]), (OK, 513), "the disk goes on");
    assert!(!rig.bench.needs_reset());
}

#[test]
fn an_image_that_became_shorter_fails_what_lies_past_its_end() {
    for cache in BOTH {
        let (_folder, path) = image(1 << 20);
        let mut rig = Rig::new(&config(&path, cache), ALL);
        File::options().write(true).open(&path).unwrap().set_len(8192).unwrap();
        assert_eq!(rig.ask(READ, 64, &[(DATA, 4096)]), (IO_ERROR, 1), "{cache:?}");
        assert_eq!(rig.ask(READ, 8, &[(DATA, 8192)]), (IO_ERROR, 1), "{cache:?}: half of it is there");
        assert_eq!(rig.ask(READ, 0, &[(DATA, 8192)]), (OK, 8193), "{cache:?}");
    }
}

#[test]
fn a_read_only_disk_refuses_to_change() {
    let (_folder, path) = image(1 << 20);
    std::fs::write(&path, pattern(5, 1 << 20)).unwrap();
    let mut config = config(&path, CacheMode::None);
    config.readonly = true;
    let mut rig = Rig::new(&config, ALL);
    assert_eq!(rig.ask(WRITE_OUT, 0, &[(DATA, 512)]), (IO_ERROR, 1));
    assert_eq!(rig.ask_range(DISCARD, 0, 8, 0), (IO_ERROR, 1));
    assert_eq!(rig.ask_range(WRITE_ZEROES, 0, 8, 0), (IO_ERROR, 1));
    assert_eq!(rig.ask(FLUSH, 0, &[]), (OK, 1));
    assert_eq!(rig.ask(READ, 8, &[(DATA, 4096)]), (OK, 4097));
    assert_eq!(rig.look(DATA, 4096), pattern(5, 1 << 20)[4096..8192]);
    assert!(contents(&path, 0, 1 << 20) == pattern(5, 1 << 20));
}

#[test]
fn the_serial_number_is_padded_with_zeros() {
    let (_folder, path) = image(512);
    let check = |serial: Option<&str>, length: u32, expected: &[u8]| {
        let mut config = config(&path, CacheMode::Writeback);
        config.serial = serial.map(Into::into);
        let mut rig = Rig::new(&config, ALL);
        rig.fill(DATA, &[0xff; 32]);
        let outcome = rig.ask(abi::VIRTIO_BLK_T_GET_ID, 0, &[(DATA, length)]);
        assert_eq!(outcome, (OK, length.min(20) + 1));
        assert_eq!(rig.look(DATA, expected.len()), expected);
    };
    check(Some("rootfs"), 20, b"rootfs\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xff");
    check(Some("exactly-twenty-bytes"), 32, b"exactly-twenty-bytes\xff");
    check(None, 20, &[0; 20]);
    check(Some("cut"), 2, b"cu\xff");
}

#[test]
fn several_queues_serve_one_disk() {
    let (_folder, path) = image(1 << 20);
    let mut config = config(&path, CacheMode::None);
    config.queues = Some(3);
    let mut rig = Rig::new(&config, ALL);
    for index in 0..3_u64 {
        // Each request is built on the first queue's slots, but goes out on its own queue.
        let (header, status) = (HEADERS + index * 64, HEADERS + index * 64 + 32);
        let bytes = [u64::from(WRITE_OUT).to_le_bytes(), (8 * index).to_le_bytes()].concat();
        rig.fill(header, &bytes);
        rig.fill(DATA + 4096 * index, &pattern(index as u8, 4096));
        let driver = &mut rig.drivers[index as usize];
        driver.add(&[(header, 16, 0), (DATA + 4096 * index, 4096, 0), (status, 1, WRITE)]);
        driver.kick();
        driver.wait_used();
        assert_eq!(rig.look(status, 1), [OK]);
    }
    assert_eq!(rig.ask(FLUSH, 0, &[]), (OK, 1));
    for index in 0..3_u64 {
        assert_eq!(contents(&path, 4096 * index, 4096), pattern(index as u8, 4096));
    }
}

#[test]
fn the_cache_mode_follows_the_driver() {
    let (_folder, path) = image(1 << 20);
    let flush = 1 << abi::VIRTIO_BLK_F_FLUSH;
    let switch = 1 << abi::VIRTIO_BLK_F_CONFIG_WCE;
    let check = |features: u64, at_start: bool, after_switch: bool| {
        let mut rig = Rig::new(&config(&path, CacheMode::Writeback), features);
        let mode = |rig: &Rig| {
            let mut mode = [0];
            rig.block.read_config(32, &mut mode);
            assert_eq!(mode[0] == 0, rig.block.disk.is_write_through());
            mode[0] == 1
        };
        assert_eq!(mode(&rig), at_start, "features {features:#x}");
        rig.block.write_config(32, &[u8::from(!at_start)]);
        assert_eq!(mode(&rig), after_switch, "features {features:#x}");
        assert_eq!(rig.ask(WRITE_OUT, 0, &[(DATA, 4096)]), (OK, 1));
        rig.block.reset(Vec::new());
        assert!(mode(&rig), "a reset disk starts with writeback");
    };
    check(flush, true, true);
    check(0, false, false);
    check(flush | switch, true, false);
    check(switch, false, true);
}

#[test]
fn writes_last_in_every_cache_mode() {
    for cache in BOTH {
        for features in [0, ALL] {
            let (_folder, path) = image(1 << 20);
            let mut rig = Rig::new(&config(&path, cache), features);
            for round in 0..4_u8 {
                rig.fill(DATA, &pattern(round, 65536));
                assert_eq!(rig.ask(WRITE_OUT, 0, &[(DATA, 65536)]), (OK, 1));
                assert_eq!(rig.ask(FLUSH, 0, &[]), (OK, 1));
                assert!(contents(&path, 0, 65536) == pattern(round, 65536), "{cache:?}");
            }
        }
    }
}
