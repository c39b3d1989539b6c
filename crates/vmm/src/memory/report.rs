//! Where the pages of a VM are.

use napa_api::control::MemoryReport;

use super::Subject;

/// The memory of the VM as it is now.
pub fn report(subject: &Subject) -> MemoryReport {
    MemoryReport { name: subject.config.name_or_default().to_owned(), size: subject.pages.count().bytes() }
}
