//! Generates the bindings from the headers that pkg-config finds, and compiles the shims.

use std::env;
use std::path::PathBuf;

use bindgen::EnumVariation;
use bindgen::callbacks::{EnumVariantValue, ParseCallbacks};

/// Gives enum variants the names of DPDK 19.11 where capsule uses them.
#[derive(Debug)]
struct OldNames;

impl ParseCallbacks for OldNames {
    fn enum_variant_name(&self, _: Option<&str>, name: &str, _: EnumVariantValue) -> Option<String> {
        (name == "RTE_ETH_MQ_RX_RSS").then(|| "ETH_MQ_RX_RSS".to_owned())
    }
}

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=src");

    let dpdk = pkg_config::Config::new()
        .range_version("22.11".."22.12")
        .probe("libdpdk")
        .unwrap_or_else(|error| panic!("DPDK 22.11 is missing; `scripts/setup` installs Debian's libdpdk-dev.\n{error}"));
    // capsule asks libnuma which socket a core is on, and its bindings list libpcap.
    println!("cargo:rustc-link-lib=dylib=numa");
    println!("cargo:rustc-link-lib=dylib=pcap");

    let arguments = ["-D_GNU_SOURCE", "-include", "rte_config.h", "-march=corei7"];

    let mut shims = cc::Build::new();
    shims.file("src/shims.c").includes(&dpdk.include_paths).opt_level(2).warnings(true);
    // DPDK's own inline functions do not pass -Wextra.
    shims.flag("-Wno-unused-parameter").flag("-Wno-deprecated-declarations");
    for argument in arguments {
        shims.flag(argument);
    }
    shims.compile("sealane_dpdk_shims");

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    bindgen::Builder::default()
        .header("src/bindings.h")
        .clang_args(arguments)
        .clang_args(dpdk.include_paths.iter().map(|path| format!("-I{}", path.display())))
        .allowlist_type("(rte|eth|pcap)_.*|cpu_set_t")
        .allowlist_function("(_rte|rte|eth|numa|pcap|sealane)_.*")
        .allowlist_var("(RTE|ETH|DEV|MEMPOOL|PKT|SEALANE|rte)_.*")
        // Ours, in src/: see there.
        .blocklist_function("rte_eal_init|rte_eth_dev_configure|rte_pktmbuf_pool_create")
        .blocklist_item("RTE_MBUF_DEFAULT_BUF_SIZE")
        // Packed structs with aligned fields, which Rust cannot express. Nothing here looks into them.
        .opaque_type("rte_arp_.*|rte_l2tpv2.*|rte_gtp.*|rte_ipv6.*")
        .default_enum_style(EnumVariation::ModuleConsts)
        .derive_copy(true)
        .derive_debug(true)
        .derive_default(true)
        .generate_comments(false)
        .layout_tests(false)
        .parse_callbacks(Box::new(OldNames))
        .generate()
        .unwrap_or_else(|error| panic!("bindgen cannot read DPDK's headers; is libclang-dev installed (`scripts/setup`)?\n{error}"))
        .write_to_file(out.join("bindings.rs"))
        .expect("OUT_DIR is writable");
}
