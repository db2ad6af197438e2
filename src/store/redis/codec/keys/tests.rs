use super::*;

#[test]
fn record_of_an_api_key_has_a_key_of_its_own() {
    let keys = Keys::new("p:");
    let id = ApiKeyId::parse("0123456789abcdef").map(SessionId::of_api_key);
    let id = id.unwrap_or(SessionId([0; 32]));
    assert_eq!(keys.session(&id), "p:api-key:{0123456789abcdef}");
    let record = keys.session(&id);
    let item = keys.tracked_item(record.as_bytes());
    assert_eq!(item, Some(CacheKey::Session(id)));
    assert_eq!(keys.session_id(&record), None);
    let slot = slots::slot(record.as_bytes());
    let others = [keys.usage(&id), keys.api_key_and_lease(&id)[1].clone()];
    for key in others {
        assert_eq!(slots::slot(key.as_bytes()), slot, "{key}");
    }
    for bad in [
        "p:api-key:{0123456789abcde}",
        "p:api-key:{0123456789ABCDEF}",
        "p:api-key:{",
    ] {
        assert_eq!(keys.tracked_item(bad.as_bytes()), None, "{bad}");
    }
}

#[test]
fn all_events_are_in_one_slot() {
    for prefix in ["portcullis:", "{app}:", ""] {
        let keys = Keys::new(prefix);
        let others = keys.events(None);
        let bulk = keys.events(Some("csrf_rejected"));
        assert!(bulk.starts_with(prefix) && bulk.ends_with(":csrf_rejected"));
        assert_eq!(slots::slot(bulk.as_bytes()), slots::slot(others.as_bytes()));
    }
}
