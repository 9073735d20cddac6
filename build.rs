//! Gives the shared library its SONAME, which rustc does not set.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let major = "0"; // MF_ABI_VERSION
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libminiflow.so.{major}");
}
