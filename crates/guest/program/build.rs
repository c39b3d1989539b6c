//! Linker arguments of the guest's ELF. They concern the binary alone: the library is also tested on the host.

fn main() {
    let folder = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets the manifest's folder");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=link.ld");
    let script = format!("-Wl,-T,{folder}/link.ld");
    let arguments = [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,-z,norelro",
        "-Wl,-z,max-page-size=4096",
        "-Wl,--gc-sections",
        script.as_str(),
    ];
    for argument in arguments {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
