//! Bytes in: a document or pointer of any bytes is refused with a reason, or it is written and read again the same, its
//! rules are judged, and its hash says what it holds.

use sluice_engine::document::Document;
use sluice_engine::pointer::Pointer;
use sluice_engine::validate;

pub(crate) fn check(data: &[u8]) {
    if let Ok(pointer) = serde_json::from_slice::<Pointer>(data) {
        let again: Pointer = serde_json::from_slice(&serde_json::to_vec(&pointer).unwrap()).unwrap();
        assert_eq!(again, pointer);
        let denied = pointer.deny.iter().filter(|denial| denial.namespace.is_none());
        for denial in denied {
            assert!(pointer.denies(&denial.pipeline, "any"));
        }
    }
    match Document::read(data) {
        Ok((document, refused)) => {
            // A refusal names its place, so that somebody can mend it.
            assert!(
                refused
                    .iter()
                    .all(|refused| refused.path.contains('[') && !refused.error.is_empty())
            );
            judge(&document);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn judge(document: &Document) {
    let json = document.to_json();
    let (again, refused) = Document::read(&json).unwrap();
    assert!(refused.is_empty(), "{refused:?}");
    assert_eq!(&again, document);
    assert_eq!(again.hash(), document.hash());
    for pipeline in &document.pipelines {
        let violations = validate::pipeline(pipeline);
        assert!(violations.iter().all(|violation| !violation.path.is_empty()));
        let mut sealed = pipeline.clone();
        sealed.seal();
        let hash = sealed.hash.clone();
        // The generation is for people: it changes nothing.
        sealed.generation = sealed.generation.wrapping_add(1);
        sealed.seal();
        assert_eq!(sealed.hash, hash);
    }
    for tenant in &document.tenants {
        let violations = validate::tenant(tenant);
        assert!(violations.iter().all(|violation| !violation.path.is_empty()));
    }
}
