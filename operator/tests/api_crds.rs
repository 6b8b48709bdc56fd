//! The generated files are what the code generates.

use std::path::Path;

use sluice_operator::api;

#[test]
fn crds_and_their_documentation_are_generated_from_this_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let update = std::env::var_os("SLUICE_UPDATE").is_some();
    let page = api::reference::render(&api::definitions().unwrap());
    let mut files: Vec<_> = api::files()
        .unwrap()
        .into_iter()
        .map(|(name, text)| (root.join("crds").join(name), text))
        .collect();
    files.push((root.join("docs/crds.md"), page));
    for (path, text) in files {
        if update {
            std::fs::write(&path, &text).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == text,
            "{} is out of date: run sluice-operator crds --out crds --docs docs/crds.md",
            path.display()
        );
        assert!(
            text.len() < 200_000,
            "kubectl apply keeps a copy in an annotation of 256 KiB"
        );
    }
}

#[test]
fn schemas_have_no_default_but_that_of_status() {
    for definition in api::definitions().unwrap() {
        let text = serde_json::to_string(&definition).unwrap();
        assert_eq!(text.matches("\"default\":").count(), 1, "{text}");
        assert!(!text.contains("nullable") && !text.contains("\"uint"), "{text}");
    }
}
