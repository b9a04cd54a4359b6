//! A router on loopback that speaks UPnP.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex};

use tokio::io::AsyncWriteExt;

use super::{ENDLESS_WANTED, NO_MAPPING, listen, question, v4};

/// A router that does it, as long as it wants to.
#[derive(Debug, Default)]
pub(in crate::reach::mapping) struct Router {
    /// The outer ports.
    pub(in crate::reach::mapping) mapped: Vec<u16>,
    pub(in crate::reach::mapping) added: usize,
    /// For how long they were to be mapped, in seconds.
    pub(super) lifetimes: Vec<String>,
    /// What it says to the next questions to map: a number of UPnP; 0 is yes. The last one stays.
    pub(super) says: Vec<u16>,
    /// Its outer address.
    pub(super) ip: &'static str,
    /// Whose it says that the ports are.
    pub(super) client: &'static str,
    /// Whether it maps without an end alone.
    pub(super) is_endless: bool,
    /// Whether it tells what is mapped.
    pub(super) tells: bool,
    /// How often each action was wanted.
    pub(in crate::reach::mapping) asked: BTreeMap<String, usize>,
}

impl Router {
    fn answer(&mut self, question: &str) -> (u16, String) {
        if question.starts_with("GET") {
            return (200, DESCRIBED.to_owned());
        }
        let value = |name: &str| {
            let (_, rest) = question.split_once(&format!("<{name}>")).unwrap();
            rest.split_once('<').unwrap().0.to_owned()
        };
        let action = question.split_once("<u:").unwrap().1;
        let action = action.split_once(' ').unwrap().0;
        *self.asked.entry(action.to_owned()).or_default() += 1;
        let mut said = String::new();
        let mut refusal = 0;
        match action {
            "GetExternalIPAddress" => {
                said = format!("<NewExternalIPAddress>{}</NewExternalIPAddress>", self.ip);
            }
            "GetSpecificPortMappingEntry" if !self.tells => refusal = 401,
            "GetSpecificPortMappingEntry" => {
                let outer = value("NewExternalPort").parse().unwrap();
                match self.mapped.contains(&outer) {
                    true => {
                        said = format!(
                            "<NewInternalPort>7000</NewInternalPort><NewInternalClient>{}\
                             </NewInternalClient><NewEnabled>1</NewEnabled>",
                            self.client
                        );
                    }
                    false => refusal = NO_MAPPING,
                }
            }
            "AddPortMapping" => {
                assert_eq!(value("NewInternalPort"), "7000");
                assert_eq!(value("NewInternalClient"), "127.0.0.1");
                refusal = match self.says.as_slice() {
                    [] => 0,
                    [last] => *last,
                    _ => self.says.remove(0),
                };
                let lifetime = value("NewLeaseDuration");
                if self.is_endless && lifetime != "0" {
                    refusal = ENDLESS_WANTED;
                }
                if refusal == 0 {
                    self.added += 1;
                    self.lifetimes.push(lifetime);
                    let outer = value("NewExternalPort").parse().unwrap();
                    self.mapped.retain(|mapped| *mapped != outer);
                    self.mapped.push(outer);
                }
            }
            "DeletePortMapping" => {
                let outer: u16 = value("NewExternalPort").parse().unwrap();
                self.mapped.retain(|mapped| *mapped != outer);
            }
            other => panic!("nothing else is asked: {other}"),
        }
        let envelope = |inner: String| {
            format!(
                "<?xml version=\"1.0\"?><s:Envelope xmlns:s=\"x\"><s:Body>{inner}</s:Body></s:Envelope>"
            )
        };
        match refusal {
            0 => (
                200,
                envelope(format!(
                    "<u:{action}Response xmlns:u=\"y\">{said}</u:{action}Response>"
                )),
            ),
            number => (
                500,
                envelope(format!(
                    "<s:Fault><faultcode>s:Client</faultcode><detail><UPnPError><errorCode>\
                     {number}</errorCode><errorDescription/></UPnPError></detail></s:Fault>"
                )),
            ),
        }
    }
}

const DESCRIBED: &str = "<?xml version=\"1.0\"?>\r\n<root xmlns=\"urn:schemas-upnp-org:device-1-0\">\
    <device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:1</deviceType>\
    <serviceList><service><serviceType>urn:schemas-upnp-org:service:Layer3Forwarding:1</serviceType>\
    <controlURL>/l3</controlURL></service></serviceList><deviceList><device><serviceList><service>\
    <serviceType>\n urn:schemas-upnp-org:service:WANPPPConnection:1 \n</serviceType>\
    <SCPDURL>/s</SCPDURL><controlURL>/c?a=1&amp;b=2</controlURL><eventSubURL/></service>\
    </serviceList></device></deviceList></device></root>";

/// Starts one.
pub(in crate::reach::mapping) fn router(says: &[u16]) -> (SocketAddrV4, Arc<Mutex<Router>>) {
    let listener = listen("127.0.0.1:0");
    let at = v4(&listener);
    let router = Arc::new(Mutex::new(Router {
        says: says.to_vec(),
        ip: "11.0.0.7",
        client: "127.0.0.1",
        tells: true,
        ..Router::default()
    }));
    let told = Arc::clone(&router);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let question = question(&mut stream).await;
            let (status, text) = router.lock().unwrap().answer(&question);
            let length = text.len();
            let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n\r\n{text}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (at, told)
}
