//! What a kernel is told when nobody says it.

use std::borrow::Cow;

use super::{ConsoleConfig, VmConfig};

impl VmConfig {
    /// The command line that the kernel gets: the given one, else for a Linux kernel the one that its consoles
    /// and disks suggest, else nothing (the embedded guest says hello and ends).
    pub fn effective_cmdline(&self) -> Cow<'_, str> {
        match (&self.cmdline, &self.kernel) {
            (Some(cmdline), _) => Cow::Borrowed(cmdline),
            (None, Some(_)) => Cow::Owned(self.linux_cmdline()),
            (None, None) => Cow::Borrowed(""),
        }
    }

    /// Linux prints on the serial port, and its root is the first disk, or the first image in memory where there is no
    /// disk. An initial RAM disk that looks for a
    /// root finds it by the same words; one that does not ignores them.
    fn linux_cmdline(&self) -> String {
        let console = match self.console {
            ConsoleConfig::Off => None,
            _ => Some("console=ttyS0"),
        };
        let root = self.disks.first().map(|disk| match disk.readonly {
            true => "root=/dev/vda ro",
            false => "root=/dev/vda rw",
        });
        let root = root.or(self.pmems.first().map(|_| "root=/dev/pmem0 ro rootflags=dax"));
        [console, root].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use crate::VmConfig;
    use crate::config::ConsoleConfig;

    fn check(words: &str, expected: &str) {
        let mut config = VmConfig { kernel: Some("bzImage".into()), ..VmConfig::default() };
        for word in words.split_whitespace() {
            match word {
                "embedded" => config.kernel = None,
                "off" => config.console = ConsoleConfig::Off,
                "initrd" => config.initrd = Some("initrd".into()),
                "given" => config.cmdline = Some("quiet".into()),
                "none" => config.cmdline = Some(String::new()),
                "pmem" => config.pmems.push("path=p".parse().unwrap()),
                disk => config.disks.push(disk.parse().unwrap()),
            }
        }
        assert_eq!(config.effective_cmdline(), expected, "{words}");
    }

    #[test]
    fn a_linux_kernel_is_told_its_console_and_its_root() {
        check("", "console=ttyS0");
        check("initrd", "console=ttyS0");
        check("path=a", "console=ttyS0 root=/dev/vda rw");
        check("path=a,readonly path=b", "console=ttyS0 root=/dev/vda ro");
        check("path=a initrd", "console=ttyS0 root=/dev/vda rw");
        check("path=a off", "root=/dev/vda rw");
        check("pmem pmem", "console=ttyS0 root=/dev/pmem0 ro rootflags=dax");
        check("pmem path=a", "console=ttyS0 root=/dev/vda rw");
        check("off", "");
    }

    #[test]
    fn a_given_command_line_is_taken_as_it_is() {
        check("path=a given", "quiet");
        check("path=a none", "");
        check("embedded given", "quiet");
        check("embedded path=a", "");
    }
}
