//! Upgrades of a running gateway.

use std::path::PathBuf;

use serde_json::json;

use super::config::Config;
use super::gateway::{Gateway, binary, run};

/// The path of the binary of an upgradable gateway, which a test may replace.
pub fn own_binary(config: &Config) -> PathBuf {
    config.folder().join("portcullis")
}

/// Puts the real binary at the gateway's path.
pub fn install(config: &Config) {
    replace(config, |new| {
        std::os::unix::fs::symlink(binary(), new).unwrap()
    });
}

/// Puts a shell script at the gateway's path.
pub fn install_script(config: &Config, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    replace(config, |new| {
        std::fs::write(new, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(new, std::fs::Permissions::from_mode(0o755)).unwrap();
    });
}

/// As a package manager does: a running binary cannot be written to.
fn replace(config: &Config, write: impl FnOnce(&PathBuf)) {
    let new = config.folder().join("portcullis.new");
    write(&new);
    std::fs::rename(&new, own_binary(config)).unwrap();
}

/// Starts a gateway that can be upgraded, in a process group that ends with it. Its control socket is
/// in its folder, unless the configuration has another setting for it.
pub fn upgradable(mut config: Config) -> Gateway {
    if config.file["admin"].get("control_socket").is_none() {
        let path = config.folder().join("control").join("socket");
        config.put("/admin/control_socket", json!(path));
    }
    install(&config);
    let binary = own_binary(&config);
    Gateway::start_group(config, &binary)
}

/// Upgrades by the command; returns the process that serves.
pub fn upgrade(gateway: &Gateway) -> u32 {
    let (code, output, errors) = try_upgrade(gateway, &[]);
    assert_eq!(code, 0, "{errors}\n{}", gateway.logs());
    let process = output.split(' ').find_map(|word| word.parse().ok());
    process.unwrap_or_else(|| panic!("{output}"))
}

pub fn try_upgrade(gateway: &Gateway, arguments: &[&str]) -> (i32, String, String) {
    let file = gateway.file().to_str().unwrap();
    run(&[&["upgrade", "--config", file], arguments].concat())
}
