//! The samples in `conf`: valid as they are, and never taken amiss when something in them is wrong.

use std::fs;
use std::path::Path;

use serde_yaml::Value;

use super::super::*;
use super::Folder;

#[test]
fn the_samples_are_valid() {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let loaded = load(&conf.join("edge.yaml")).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert!(loaded.config.proxies.len() >= 7);
    assert!(loaded.config.edge.listeners.iter().all(|listener| listener.address.ip().is_loopback()));
}

/// A folder with the files that the samples refer to.
pub(super) fn folder_of_samples() -> Folder {
    let folder = Folder::new();
    for part in ["secrets", "keys"] {
        fs::create_dir(folder.path(part)).unwrap();
        for file in fs::read_dir(samples().join("proxies.d").join(part)).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), folder.path(part).join(file.file_name())).unwrap();
        }
    }
    folder
}

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf")
}

/// All samples in one file.
pub(super) fn all_samples() -> Value {
    let read = |path: PathBuf| serde_yaml::from_str::<Value>(&fs::read_to_string(path).unwrap()).unwrap();
    let mut all = read(samples().join("edge.yaml"));
    all.as_mapping_mut().unwrap().remove("include");
    for name in ["10-first.yaml", "20-every-type.yaml", "30-rules.yaml"] {
        for (list, entries) in read(samples().join("proxies.d").join(name)).as_mapping().unwrap() {
            all[list].as_sequence_mut().unwrap().extend(entries.as_sequence().unwrap().clone());
        }
    }
    all
}

/// `whole` with each of its values replaced by each of `others` or, for `None`, removed, one at a time.
pub(super) fn with_one_mistake(whole: &Value, others: &[Option<Value>], see: &mut dyn FnMut(&Value)) {
    for path in paths(whole) {
        for other in others {
            let mut changed = whole.clone();
            let (last, parents) = path.split_last().unwrap();
            let parent = parents.iter().fold(&mut changed, |value, step| match step {
                Value::Number(index) => &mut value[index.as_u64().unwrap() as usize],
                key => &mut value[key],
            });
            match (parent, last, other) {
                (Value::Sequence(items), Value::Number(index), Some(other)) => {
                    items[index.as_u64().unwrap() as usize] = other.clone();
                }
                (Value::Mapping(map), key, Some(other)) => drop(map.insert(key.clone(), other.clone())),
                (Value::Mapping(map), key, None) => drop(map.remove(key)),
                _ => continue,
            }
            see(&changed);
        }
    }
}

/// Nothing, the wrong kind, the right kind with the wrong content.
pub(super) fn mistakes() -> [Option<Value>; 6] {
    let mapping = serde_yaml::from_str("{ id: other, value: 1 }").unwrap();
    [None, Some(Value::Null), Some(5.into()), Some(Value::Sequence(Vec::new())), Some("x y".into()), Some(mapping)]
}

fn paths(value: &Value) -> Vec<Vec<Value>> {
    let children: Vec<(Value, &Value)> = match value {
        Value::Mapping(map) => map.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Sequence(items) => items.iter().enumerate().map(|(index, value)| (index.into(), value)).collect(),
        _ => Vec::new(),
    };
    let longer = |(step, child): (Value, &Value)| {
        let deeper = paths(child).into_iter().map({
            let step = step.clone();
            move |path| std::iter::once(step.clone()).chain(path).collect()
        });
        std::iter::once(vec![step]).chain(deeper).collect::<Vec<_>>()
    };
    children.into_iter().flat_map(longer).collect()
}

#[test]
fn no_mistake_panics_and_none_loses_a_proxy() {
    let folder = folder_of_samples();
    let all = all_samples();
    let mut loader = folder.loader();
    let count = |value: &Value| value["proxies"].as_sequence().map_or(0, Vec::len);
    let mut accepted = 0;
    let mut refused = 0;
    with_one_mistake(&all, &mistakes(), &mut |changed| {
        fs::write(folder.path("edge.yaml"), serde_yaml::to_string(changed).unwrap()).unwrap();
        match loader.load() {
            Ok(loaded) => {
                accepted += 1;
                assert_eq!(loaded.config.proxies.len(), count(changed));
            }
            Err(problems) => {
                refused += 1;
                assert!(problems.len() > 0);
                assert!(problems.iter().all(|problem| !problem.to_string().contains('\n')), "{problems}");
            }
        }
    });
    assert!(accepted > 100 && refused > 1_000, "{accepted} accepted, {refused} refused");
}

#[test]
fn the_sample_shows_every_key_and_its_default() {
    let conf = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/edge.yaml")).unwrap();
    for key in edge::KEYS {
        assert!(conf.lines().any(|line| line.starts_with(&format!("{key}:"))), "{key}");
    }
    let (sample, bare) =
        (Folder::new().write("edge.yaml", &conf.replace("include:", "# include:")).load(), Folder::new().load());
    let shown = |edge: &model::Edge| {
        let (limits, pool, shutdown) = (&edge.limits, &edge.pool, edge.shutdown);
        let times = [limits.header_timeout, limits.keepalive_timeout, limits.body_timeout, limits.write_timeout];
        let streams = (limits.requests_per_connection, limits.http2_max_streams);
        let sizes = [limits.max_header_bytes, limits.max_headers, limits.max_requests_in_flight, pool.max_idle];
        (
            times,
            streams,
            sizes,
            pool.idle_timeout,
            edge.dns.max_stale,
            edge.held_responses_memory,
            edge.threads,
            shutdown,
        )
    };
    assert_eq!(shown(&sample.config.edge), shown(&bare.config.edge));
}
