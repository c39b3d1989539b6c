//! What opening a disk refuses, and what it says then.

use super::*;

/// The message for a disk that cannot be opened. `path` is taken out of it.
fn refusal(config: &DiskConfig) -> String {
    let error = Block::open("disk0".into(), config, 1).err().expect("the disk must be refused");
    assert!(matches!(error, OpenError::Input(_)), "{error} can be mended by the user");
    let (path, message) = (format!("disk {} ", config.path.display()), error.to_string());
    message.strip_prefix(&path).unwrap_or_else(|| panic!("{message} does not name {path}")).to_owned()
}

#[test]
fn an_image_that_cannot_be_used_says_why_and_what_mends_it() {
    let folder = tempfile::tempdir().unwrap();
    let check = |name: &str, content: Option<&[u8]>, words: &[&str]| {
        let path = folder.path().join(name);
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        for cache in [CacheMode::None, CacheMode::Writeback] {
            let message = refusal(&config(&path, cache));
            for word in words {
                assert!(message.contains(word), "{name}: {message} lacks {word}");
            }
            assert_eq!(message.lines().count(), 1);
        }
    };
    check("missing", None, &["does not exist", "truncate -s"]);
    check("missing/deeper", None, &["does not exist"]);
    check(".", None, &["is a folder"]);
    check("empty", Some(b""), &["is empty", "truncate -s"]);
    check("odd", Some(&[0; 1000]), &["1000 bytes", "multiple of 512", "truncate -s %512"]);
    check("foreign", Some(b"QFI\xfb\0\0\0\x03"), &["qcow2", "qemu-img convert -O raw"]);
}

#[test]
fn what_is_no_file_is_refused_before_it_is_opened() {
    let message = refusal(&config(Path::new("/dev/null"), CacheMode::Writeback));
    assert!(message.contains("neither a file nor a block device"), "{message}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let message = refusal(&config(&path, CacheMode::Writeback));
    assert!(message.contains("neither a file nor a block device"), "{message}");
}

#[test]
fn a_locked_image_is_refused_until_it_is_free() {
    let (_folder, path) = image(4096);
    let writable = config(&path, CacheMode::Writeback);
    let readonly = DiskConfig { readonly: true, ..writable.clone() };
    let holder = block(&writable);
    for config in [&writable, &readonly] {
        let message = refusal(config);
        assert!(message.contains("is locked") && message.contains("`readonly`"), "{message}");
    }
    drop(holder);
    let reader = block(&readonly);
    drop(block(&readonly));
    assert!(refusal(&writable).contains("is locked"));
    drop(reader);
    drop(block(&writable));
}

#[test]
fn the_configuration_of_a_vm_becomes_its_disks() {
    let (_first_folder, first) = image(1 << 20);
    let (_second_folder, second) = image(2 << 20);
    let mut vm = napa_api::VmConfig { cpus: 8, ..Default::default() };
    vm.disks = vec![config(&first, CacheMode::None), config(&second, CacheMode::Writeback)];
    vm.disks[1].queues = Some(2);
    vm.disks[1].readonly = true;
    let queues_default = 4;
    let disks: Vec<Block> = vm
        .disks
        .iter()
        .enumerate()
        .map(|(index, disk)| Block::open(format!("disk{index}"), disk, queues_default).unwrap())
        .collect();

    assert_eq!(disks[0].name(), "disk0");
    assert_eq!(disks[0].id(), 2);
    assert_eq!(disks[0].queue_sizes(), vec![256; 4]);
    assert_eq!(disks[1].queue_sizes(), vec![256; 2]);
    let has = |disk: &Block, feature: u32| disk.features() & (1 << feature) != 0;
    for (feature, of_first, of_second) in [
        (abi::VIRTIO_BLK_F_RO, false, true),
        (abi::VIRTIO_BLK_F_DISCARD, true, false),
        (abi::VIRTIO_BLK_F_WRITE_ZEROES, true, false),
        (abi::VIRTIO_BLK_F_CONFIG_WCE, true, false),
        (abi::VIRTIO_BLK_F_FLUSH, true, true),
        (abi::VIRTIO_BLK_F_MQ, true, true),
    ] {
        assert_eq!((has(&disks[0], feature), has(&disks[1], feature)), (of_first, of_second), "{feature}");
    }
    let capacity = |disk: &Block| {
        let mut bytes = [0; 8];
        disk.read_config(0, &mut bytes);
        u64::from_le_bytes(bytes)
    };
    assert_eq!((capacity(&disks[0]), capacity(&disks[1])), (2048, 4096));
}
