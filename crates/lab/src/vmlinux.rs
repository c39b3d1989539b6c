//! Cuts the uncompressed ELF kernel out of a bzImage (Linux, Documentation/arch/x86/boot.rst, §1.3).
//!
//! The ELF file boots about a second faster under emulation, which would unpack the kernel slowly.

/// Offset of the boot sector's sector count, in 512-byte sectors of real-mode code after the first.
const SETUP_SECTORS: usize = 0x1f1;
const HEADER_MAGIC: usize = 0x202;
const PROTOCOL_VERSION: usize = 0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;

/// The build appends the uncompressed size to every payload but gzip's, which ends with one anyway.
const SIZE_TRAILER: usize = 4;

/// The compressed kernel in a bzImage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload<'a> {
    /// How it is compressed.
    pub compression: Compression,
    /// The compressed stream.
    pub stream: &'a [u8],
}

/// The compressions that Debian uses for its kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// `lz4`, in its legacy frames.
    Lz4,
    /// `xz`.
    Xz,
    /// `zstd`.
    Zstd,
}

/// Why a file gives no kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The boot sector's signature or its version is wrong.
    #[error("the file is no bzImage of boot protocol 2.08 or later")]
    NoBzImage,
    /// The header points outside the file.
    #[error("the bzImage is truncated")]
    Truncated,
    /// Neither lz4 nor xz nor zstd.
    #[error("the kernel is compressed in a way that starts with {0:02x?}")]
    UnknownCompression([u8; 4]),
}

/// Finds the compressed kernel.
///
/// # Errors
/// The file is no bzImage, is truncated, or is compressed in another way.
pub fn payload(bzimage: &[u8]) -> Result<Payload<'_>, PayloadError> {
    let number = |offset: usize| -> Result<usize, PayloadError> {
        let bytes = bzimage.get(offset..offset + 4).and_then(|bytes| bytes.first_chunk::<4>());
        Ok(u32::from_le_bytes(*bytes.ok_or(PayloadError::Truncated)?) as usize)
    };
    let is_bzimage = bzimage.get(HEADER_MAGIC..HEADER_MAGIC + 4) == Some(b"HdrS");
    if !is_bzimage || number(PROTOCOL_VERSION)? & 0xffff < 0x0208 {
        return Err(PayloadError::NoBzImage);
    }
    // The boot protocol reads zero sectors as four.
    let sectors = match number(SETUP_SECTORS)? & 0xff {
        0 => 4,
        sectors => sectors,
    };
    let start = (sectors + 1) * 512 + number(PAYLOAD_OFFSET)?;
    let end = start + number(PAYLOAD_LENGTH)?;
    let stream = bzimage.get(start..end.saturating_sub(SIZE_TRAILER)).ok_or(PayloadError::Truncated)?;
    let magic = *stream.first_chunk::<4>().ok_or(PayloadError::Truncated)?;
    let compression = match magic {
        [0x02, 0x21, 0x4c, 0x18] => Compression::Lz4,
        [0xfd, b'7', b'z', b'X'] => Compression::Xz,
        [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
        other => return Err(PayloadError::UnknownCompression(other)),
    };
    Ok(Payload { compression, stream })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bzimage(stream: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024 + 16];
        image[SETUP_SECTORS] = 1;
        image[HEADER_MAGIC..HEADER_MAGIC + 4].copy_from_slice(b"HdrS");
        image[PROTOCOL_VERSION..PROTOCOL_VERSION + 2].copy_from_slice(&[0x0f, 0x02]);
        image[PAYLOAD_OFFSET] = 16;
        image[PAYLOAD_LENGTH] = (stream.len() + SIZE_TRAILER) as u8;
        image.extend(stream);
        image.extend([9; SIZE_TRAILER]);
        image
    }

    fn check(image: &[u8], expected: Result<(Compression, &[u8]), PayloadError>) {
        assert_eq!(payload(image).map(|payload| (payload.compression, payload.stream)), expected);
    }

    #[test]
    fn the_payload_is_found_by_its_header() {
        let zstd = [0x28, 0xb5, 0x2f, 0xfd, 1, 2, 3];
        check(&bzimage(&zstd), Ok((Compression::Zstd, &zstd)));
        let xz = [0xfd, b'7', b'z', b'X', b'Z', 0];
        check(&bzimage(&xz), Ok((Compression::Xz, &xz)));
        let lz4 = [0x02, 0x21, 0x4c, 0x18, 7];
        check(&bzimage(&lz4), Ok((Compression::Lz4, &lz4)));
    }

    #[test]
    fn foreign_files_are_refused() {
        check(b"", Err(PayloadError::NoBzImage));
        check(&[0; 4096], Err(PayloadError::NoBzImage));
        check(&bzimage(&[1, 2, 3, 4]), Err(PayloadError::UnknownCompression([1, 2, 3, 4])));
        check(&bzimage(&[0x28, 0xb5, 0x2f, 0xfd])[..1042], Err(PayloadError::Truncated));
    }

    proptest! {
        #[test]
        fn any_header_is_read_without_a_panic(header in prop::collection::vec(any::<u8>(), 0..1200)) {
            let mut image = bzimage(&[]);
            for (byte, new) in image.iter_mut().zip(&header).skip(HEADER_MAGIC + 8) {
                *byte = *new;
            }
            let _ = payload(&image);
            let _ = payload(&header);
        }
    }
}
