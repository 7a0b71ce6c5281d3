//! What the receiving end, `pointsman unwrap`, is told.

use super::*;

#[test]
fn the_receiving_end_has_one_route() {
    let arguments = [
        "unwrap",
        "--proxy-from=10.0.0.5",
        "--listen",
        "127.0.0.1:0",
        "--to",
        "127.0.0.1:443",
        "--to",
        "[::1]:443",
    ];
    let config = checked(&arguments, &[]);
    let listeners = config.listeners.iter();
    let protocols: Vec<Protocol> = listeners.map(|listener| listener.protocol).collect();
    assert_eq!(protocols, [Protocol::Tcp]);
    let routes = [
        ("default:tcp", "127.0.0.1:443 source=client"),
        ("default:tcp", "[::1]:443 source=client"),
    ];
    let routes = routes.map(static_route);
    assert_eq!(config.sync.static_routes, routes);
    // What check is told is what unwrap is told.
    let of_check = [&["check"], &arguments[1..]].concat();
    assert_eq!(checked(&of_check, &[]).sync.static_routes, routes);
    for (replaced, by, said) in [
        (2, "--https", "https: unwrap reads a PROXY header"),
        (1, "--drain=1s", "name the proxies in front"),
        (5, "10.0.0.1", "has no port"),
        (5, "a.test:1", "is no address to which a client"),
        (5, "unix:/run/a", "is no address to which a client"),
        (5, "10.0.0.1:1 proxy=v2", "has options"),
        (5, "10.0.0.1:x", "is no server"),
        (0, "demo", "is an option of pointsman unwrap"),
    ] {
        let mut arguments = arguments;
        arguments[replaced] = by;
        let text = mistakes(&arguments, &[]);
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
    let nowhere = mistakes(&arguments[..4], &[]);
    assert!(nowhere.contains("add --to ADDR"), "{nowhere}");
    let deaf = mistakes(&[&arguments[..2], &arguments[4..]].concat(), &[]);
    assert!(deaf.contains("add --listen ADDR"), "{deaf}");
    let of_nobody = mistakes(&["--https", ":443", "--route", "default:tcp=a:1"], &[]);
    assert!(of_nobody.contains("the defaults are"), "{of_nobody}");
}
