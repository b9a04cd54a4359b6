//! TLS to proxies and to the hosts of files (RFC 8446): what the system trusts, and what a file names
//! beside that.
//!
//! It hides from who is on the way which hosts a proxy is asked for, and the password for it. What passes
//! after that is protected by itself.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, Error};

use crate::fetch;

/// The longest file with certificates, in octets.
const FILE_BYTES_MAX: usize = 1 << 20;

/// How long certificates are used before they are read again.
const CERTIFICATES_TIME: Duration = Duration::from_secs(60 * 60);

/// Whom TLS trusts: the certificates of the system, and those of one more file. Clones are one.
///
/// Nothing is read before the first connection.
#[derive(Clone, Debug, Default)]
pub struct Trust(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    file: Option<PathBuf>,
    made: Mutex<Option<(Instant, Arc<ClientConfig>)>>,
}

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file with certificates cannot be read.
    #[error("the certificates in {0} cannot be read: {1}")]
    File(PathBuf, String),
    /// Nobody is trusted.
    #[error(
        "no certificates to trust: install those of the system (Debian: ca-certificates), or name a \
         file by `proxy_ca`"
    )]
    Nobody,
    /// The name is none that a certificate could have.
    #[error("{0} is no name for a certificate")]
    Name(String),
    /// The other end does not prove who it is, or does not speak TLS.
    #[error("{0} does not prove by TLS who it is: {1}")]
    Refused(String, io::Error),
}

impl Trust {
    /// Trusts what the system does, and the certificates in a file of PEM (RFC 7468) of at most 1 MiB.
    #[must_use]
    pub fn new(file: Option<PathBuf>) -> Self {
        Self(Arc::new(Inner {
            file,
            made: Mutex::default(),
        }))
    }

    /// Reads the certificates, or returns what was made of them within the last hour.
    ///
    /// # Errors
    /// When there are none, or the file cannot be read.
    pub async fn config(&self) -> Result<Arc<ClientConfig>, TrustError> {
        if let Some((at, made)) = &*self.made()
            && at.elapsed() < CERTIFICATES_TIME
        {
            return Ok(Arc::clone(made));
        }
        let inner = Arc::clone(&self.0);
        let read = tokio::task::spawn_blocking(move || config(inner.file.as_deref()));
        let made = Arc::new(read.await.map_err(|_| TrustError::Nobody)??);
        *self.made() = Some((Instant::now(), Arc::clone(&made)));
        Ok(made)
    }

    /// Speaks TLS over a stream to `host`, a name or an address, as an HTTP/1.1 client.
    ///
    /// # Errors
    /// [`TrustError`] tells what to look at.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &str,
        stream: S,
    ) -> Result<TlsStream<S>, TrustError> {
        let connector = TlsConnector::from(self.config().await?);
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|_| TrustError::Name(host.to_owned()))?;
        let connected = connector.connect(name, stream).await;
        connected.map_err(|error| TrustError::Refused(host.to_owned(), error))
    }

    fn made(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Arc<ClientConfig>)>> {
        self.0.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.file {
            Some(file) => write!(f, "the system's certificates and {}", file.display()),
            None => f.write_str("the system's certificates"),
        }
    }
}

fn config(file: Option<&Path>) -> Result<ClientConfig, TrustError> {
    let further = file.map_or_else(|| Ok(Vec::new()), certificates)?;
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let verifier = Verifier::new_with_extra_roots(further, Arc::clone(&provider));
    let verifier = verifier.map_err(|_: Error| TrustError::Nobody)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| TrustError::Nobody)?;
    let mut config = config
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let wrong = |what: String| TrustError::File(file.to_owned(), what);
    let octets = fetch::read(file, FILE_BYTES_MAX).map_err(|error| wrong(error.to_string()))?;
    if octets.len() > FILE_BYTES_MAX {
        return Err(wrong(format!("it is longer than {FILE_BYTES_MAX} octets")));
    }
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&octets).collect();
    let certificates = certificates.map_err(|error| wrong(error.to_string()))?;
    if certificates.is_empty() {
        return Err(wrong("there is no certificate in it".to_owned()));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fetch::fetch;
    use crate::settings::Location;
    use tokio::net::TcpStream;

    const CERTIFICATE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/cert.pem");
    const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/key.pem");

    #[tokio::test]
    async fn a_file_without_certificates_is_told_with_its_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in [
            "",
            "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n",
        ] {
            std::fs::write(file.path(), text).unwrap();
            let trust = Trust::new(Some(file.path().to_owned()));
            let error = trust.config().await.unwrap_err().to_string();
            assert!(
                error.contains(&file.path().display().to_string()),
                "{error}"
            );
        }
        std::fs::write(file.path(), vec![b'\n'; FILE_BYTES_MAX + 1]).unwrap();
        let long = file.path().to_str().unwrap();
        for (path, why) in [
            ("/nowhere/ca.pem", ""),
            ("/dev/zero", "no file"),
            ("/", "no file"),
            (long, "longer"),
        ] {
            let error = Trust::new(Some(path.into())).config().await.unwrap_err();
            assert!(matches!(error, TrustError::File(..)), "{error}");
            assert!(error.to_string().contains(why), "{error}");
        }
    }

    /// Answers one request by TLS, and returns the port.
    async fn serve_by_tls(answer: &'static [u8]) -> u16 {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        use tokio_rustls::TlsAcceptor;
        use tokio_rustls::rustls::ServerConfig;
        use tokio_rustls::rustls::pki_types::PrivateKeyDer;
        let certificates = certificates(Path::new(CERTIFICATE)).unwrap();
        let key = PrivateKeyDer::from_pem_file(KEY).unwrap();
        let provider = Arc::new(ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // Who does not trust it ends it.
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let mut octets = [0; 1_024];
                let _ = stream.read(&mut octets).await;
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
            }
        });
        port
    }

    #[tokio::test]
    async fn files_come_by_tls_from_those_who_are_trusted() {
        let port = serve_by_tls(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").await;
        let trusting = Trust::new(Some(CERTIFICATE.into()));
        for host in ["localhost", "127.0.0.1"] {
            let location = format!("https://{host}:{port}/proxy.pac").parse().unwrap();
            let fetched = fetch(&location, 5, &trusting).await;
            assert_eq!(fetched.unwrap(), b"hello", "{host}");
        }
        // Of nobody who is known.
        let location: Location = format!("https://localhost:{port}/").parse().unwrap();
        let error = fetch(&location, 5, &Trust::default()).await.unwrap_err();
        let error = error.to_string();
        let proof = ["does not prove by TLS", "no certificates to trust"];
        assert!(proof.iter().any(|why| error.contains(why)), "{error}");
    }

    #[tokio::test]
    async fn a_certificate_of_another_name_is_refused() {
        let port = serve_by_tls(b"").await;
        let trusting = Trust::new(Some(CERTIFICATE.into()));
        for (host, proves) in [
            ("localhost", true),
            ("other.example", false),
            ("127.0.0.2", false),
        ] {
            let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            match trusting.connect(host, stream).await {
                Ok(_) => assert!(proves, "{host}"),
                Err(TrustError::Refused(_, error)) => {
                    assert!(!proves, "{host}: {error}");
                    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
                    let is_proof = matches!(cause, Some(Error::InvalidCertificate(_)));
                    assert!(is_proof, "{host}: {error}");
                }
                Err(error) => panic!("{host}: {error}"),
            }
        }
    }
}
