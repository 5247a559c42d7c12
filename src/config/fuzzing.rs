//! The configuration as a function of bytes.

use std::path::Path;

use super::document::Text;

/// A configuration file. What is accepted says where it stands; what is not says where it is wrong.
pub(crate) fn config(bytes: &[u8]) {
    let path = Path::new("log-agent.config");
    let transports = crate::send::transports();
    let Ok(text) = Text::from_bytes(path, bytes.to_vec(), &transports) else { return };
    match super::resolve(&text, Some(Path::new("spool"))) {
        Ok(config) => assert!(!config.sources.is_empty()),
        Err(error) => {
            let said = crate::error_chain(&error);
            assert!(!said.contains('\n'), "more than a line: {said}");
            let lines = bytes.iter().filter(|byte| **byte == b'\n').count() + 1;
            assert!(error.line_number().is_none_or(|line| (1..=lines).contains(&line)), "{said}");
        }
    }
}
